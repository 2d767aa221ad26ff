package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	models := flag.String("models", "", "folder with one folder per service holding service-2.json (required)")
	out := flag.String("out", "aws", "folder that gets one package per service")
	flag.Parse()
	if *models == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*models, *out); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(models, out string) error {
	for _, s := range services {
		m, err := load(models, s)
		if err != nil {
			return err
		}
		g, err := plan(s, m)
		if err != nil {
			return fmt.Errorf("%s: %w", s.pkg, err)
		}
		dir := filepath.Join(out, s.pkg)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for name, emit := range map[string]func() ([]byte, error){
			"types_gen.go":   g.types,
			"schema_gen.go":  g.schema,
			"handler_gen.go": g.handler,
		} {
			src, err := emit()
			if err != nil {
				return fmt.Errorf("%s/%s: %w", s.pkg, name, err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), src, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
