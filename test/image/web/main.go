// Command web is the smallest useful thing to run as a task: a web server whose
// page says which task answers.
//
// It is compiled into images by the tests and the demo and must stay one static
// file that uses nothing but the standard library.
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"html/template"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

var page = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{.Message}}</title>
<style>body{font:16px/1.6 system-ui,sans-serif;max-width:36em;margin:4em auto;padding:0 1em}dt{color:#666}dd{margin:0 0 .6em;font-family:monospace}</style>
<h1>{{.Message}}</h1>
<dl><dt>task<dd>{{.Task}}<dt>zone<dd>{{.Zone}}<dt>address<dd>{{.Address}}<dt>host name<dd>{{.Hostname}}</dl>
</html>
`))

type who struct{ Message, Task, Zone, Address, Hostname string }

func main() {
	log.SetFlags(0)
	port := cmp.Or(os.Getenv("PORT"), "80")
	if len(os.Args) > 1 && os.Args[1] == "healthy" {
		resp, err := http.Get("http://127.0.0.1:" + port + "/")
		if err != nil || resp.StatusCode != http.StatusOK {
			os.Exit(1)
		}
		return
	}
	me := lookup()
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		log.Printf("%s GET /", r.RemoteAddr)
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_ = page.Execute(w, me) // a client that went away
			return
		}
		fmt.Fprintf(w, "%s: task %s in %s at %s (%s)\n", me.Message, me.Task, me.Zone, me.Address, me.Hostname)
	})
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("task %s serves port %s at %s", me.Task, port, me.Address)
	go func() {
		end := make(chan os.Signal, 1)
		signal.Notify(end, syscall.SIGTERM, os.Interrupt)
		log.Printf("%v: goodbye", <-end)
		os.Exit(0)
	}()
	log.Fatal(http.Serve(l, nil))
}

// lookup asks the task metadata endpoint who this is. Outside a task it is nobody.
func lookup() who {
	me := who{Message: cmp.Or(os.Getenv("MESSAGE"), "Hello from Berth"), Task: "none", Zone: "nowhere", Address: "none"}
	me.Hostname, _ = os.Hostname()
	me.Address = address(me.Address)
	base := os.Getenv("ECS_CONTAINER_METADATA_URI_V4")
	if base == "" {
		return me
	}
	client := http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get(base + "/task")
	if err != nil {
		log.Printf("metadata: %v", err)
		return me
	}
	defer resp.Body.Close()
	var task struct{ TaskARN, AvailabilityZone string }
	if err := json.NewDecoder(resp.Body).Decode(&task); err != nil {
		log.Printf("metadata: %v", err)
		return me
	}
	me.Task = task.TaskARN[strings.LastIndexByte(task.TaskARN, '/')+1:]
	me.Zone = cmp.Or(task.AvailabilityZone, me.Zone)
	return me
}

// address is the first one that peers can reach.
func address(none string) string {
	as, err := net.InterfaceAddrs()
	if err != nil {
		return none
	}
	for _, a := range as {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	return none
}
