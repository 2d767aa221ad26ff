package vpc

import "testing"

func TestWithinSubnet(t *testing.T) {
	l := newLab(t)
	l.add("eni-1", "vpc-a", "subnet-a1", "10.0.0.10", "", "sg-open")
	l.add("eni-2", "vpc-a", "subnet-a1", "10.0.0.11", "", "sg-open")
	l.add("eni-3", "vpc-a", "subnet-a1", "10.0.0.12", "", "sg-shut")
	l.set()
	l.serve("eni-1", 80)
	l.serve("eni-3", 80)
	l.reaches("eni-2", "10.0.0.10:80", "10.0.0.11")
	l.misses("eni-2", "10.0.0.12:80")
	l.misses("eni-3", "10.0.0.10:80")
	if l.set() {
		t.Error("second Set changed something")
	}
}
