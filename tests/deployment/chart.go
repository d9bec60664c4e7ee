// Renders a Helm chart as `helm template` does, as far as charts of this repository go: templates with sprig's functions,
// include, tpl, toYaml, required, fail and .Files.Get. It is built in seconds; helm itself takes minutes.
//
//	GO111MODULE=off GOPATH=/usr/share/gocode go run tests/deployment/chart.go [-release R] [-kube V] [-upgrade] CHART [VALUES...]
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"sigs.k8s.io/yaml"
)

type values = map[string]interface{}

func main() {
	release := flag.String("release", "shop", "name of the release")
	kube := flag.String("kube", "v1.37.0", "version of the cluster")
	upgrade := flag.Bool("upgrade", false, "render an upgrade, not an installation")
	notes := flag.Bool("notes", false, "print NOTES.txt instead of the manifests")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: chart [OPTIONS] CHART [VALUES...]")
		os.Exit(2)
	}
	rendered, err := render(flag.Arg(0), flag.Args()[1:], *release, *kube, *upgrade, *notes)
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
	fmt.Print(rendered)
}

func render(chart string, files []string, release, kube string, upgrade, notes bool) (string, error) {
	meta, err := read(filepath.Join(chart, "Chart.yaml"))
	if err != nil {
		return "", err
	}
	merged, err := read(filepath.Join(chart, "values.yaml"))
	if err != nil {
		return "", err
	}
	for _, file := range files {
		more, err := read(file)
		if err != nil {
			return "", err
		}
		merged = merge(merged, more)
	}
	major, minor := version(kube)
	context := values{
		"Values": merged,
		"Release": values{
			"Name": release, "Namespace": "default", "Service": "Helm", "Revision": 1,
			"IsInstall": !upgrade, "IsUpgrade": upgrade,
		},
		// Charts name these with a capital letter, the file without.
		"Chart": capitalized(meta),
		"Capabilities": values{
			"KubeVersion": values{"Version": kube, "Major": major, "Minor": minor, "GitVersion": kube},
		},
		"Files": folder(chart),
	}
	return execute(chart, context, notes)
}

// Reads a YAML file as a map; an empty file is an empty map.
func read(path string) (values, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	parsed := values{}
	if err := yaml.Unmarshal(text, &parsed); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return parsed, nil
}

// Lays values over others, as helm does: maps are merged, null removes a key, everything else replaces.
func merge(under, over values) values {
	for key, value := range over {
		inner, isMap := value.(values)
		below, wasMap := under[key].(values)
		switch {
		case value == nil:
			delete(under, key)
		case isMap && wasMap:
			under[key] = merge(below, inner)
		default:
			under[key] = value
		}
	}
	return under
}

func version(kube string) (string, string) {
	parts := strings.Split(strings.TrimPrefix(kube, "v"), ".")
	return parts[0], parts[1]
}

func capitalized(meta values) values {
	made := values{}
	for key, value := range meta {
		made[strings.ToUpper(key[:1])+key[1:]] = value
	}
	return made
}

type folder string

// Get returns the content of a file of the chart, or nothing if there is none, as helm does.
func (chart folder) Get(name string) string {
	text, err := os.ReadFile(filepath.Join(string(chart), name))
	if err != nil {
		return ""
	}
	return string(text)
}

// The functions that helm adds to those of sprig, or takes away.
func functions(all *template.Template) template.FuncMap {
	made := sprig.TxtFuncMap()
	delete(made, "env")
	delete(made, "expandenv")
	depth := 0
	made["include"] = func(name string, data interface{}) (string, error) {
		if depth++; depth > 1000 {
			return "", errors.New("include is nested too deep: " + name)
		}
		defer func() { depth-- }()
		var out strings.Builder
		err := all.ExecuteTemplate(&out, name, data)
		return out.String(), err
	}
	made["tpl"] = func(text string, data interface{}) (string, error) {
		copied, err := all.Clone()
		if err != nil {
			return "", err
		}
		parsed, err := copied.New("tpl").Parse(text)
		if err != nil {
			return "", err
		}
		var out strings.Builder
		err = parsed.Execute(&out, data)
		return strings.ReplaceAll(out.String(), "<no value>", ""), err
	}
	made["toYaml"] = func(value interface{}) string {
		text, err := yaml.Marshal(value)
		if err != nil {
			return ""
		}
		return strings.TrimSuffix(string(text), "\n")
	}
	made["fromYaml"] = func(text string) values {
		parsed := values{}
		if err := yaml.Unmarshal([]byte(text), &parsed); err != nil {
			parsed["Error"] = err.Error()
		}
		return parsed
	}
	made["toJson"] = func(value interface{}) string {
		text, err := json.Marshal(value)
		if err != nil {
			return ""
		}
		return string(text)
	}
	made["required"] = func(message string, value interface{}) (interface{}, error) {
		if text, isText := value.(string); value == nil || (isText && text == "") {
			return nil, errors.New(message)
		}
		return value, nil
	}
	made["fail"] = func(message string) (string, error) { return "", errors.New(message) }
	made["lookup"] = func(_, _, _, _ string) values { return values{} }
	return made
}

func execute(chart string, context values, notes bool) (string, error) {
	all := template.New("all").Option("missingkey=zero")
	all.Funcs(functions(all))
	var names []string
	err := filepath.Walk(filepath.Join(chart, "templates"), func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(filepath.Dir(chart), path)
		if err != nil {
			return err
		}
		names = append(names, name)
		_, err = all.New(name).Parse(string(text))
		return err
	})
	if err != nil {
		return "", err
	}
	sort.Strings(names)
	var out bytes.Buffer
	for _, name := range names {
		base := filepath.Base(name)
		if strings.HasPrefix(base, "_") || (base == "NOTES.txt") != notes {
			continue
		}
		context["Template"] = values{"Name": name, "BasePath": filepath.Join(filepath.Base(chart), "templates")}
		var text bytes.Buffer
		if err := all.ExecuteTemplate(&text, name, context); err != nil {
			return "", err
		}
		rendered := strings.ReplaceAll(text.String(), "<no value>", "")
		if notes {
			return rendered, nil
		}
		for _, document := range strings.Split("\n"+rendered, "\n---") {
			if document = strings.Trim(document, "\n "); document != "" {
				fmt.Fprintf(&out, "---\n# Source: %s\n%s\n", name, document)
			}
		}
	}
	return out.String(), nil
}
