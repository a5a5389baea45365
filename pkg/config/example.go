package config

import _ "embed"

//go:embed example.yaml
var example string

// Example is a configuration to begin with, which passes every check that does not look at this machine.
func Example() string { return example }
