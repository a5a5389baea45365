package main

import (
	"fmt"
	"io"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/vss/provider"
)

// A local server that COM started for somebody who looks at the providers; it never holds anything.
const (
	comPause = 500 * time.Millisecond // between two looks at the references
	comIdle  = 5 * time.Second        // without a reference, until it leaves
	comLimit = 5 * time.Minute        // whatever references there are
)

// runCom is what COM starts by the class's LocalServer32 when no service is registered for it. It serves the class until
// nobody refers to it.
func runCom(args []string, _, stderr io.Writer) int {
	if len(args) > 0 {
		return say(stderr, exitUsage, "com: it takes no arguments but -Embedding\n")
	}
	server, err := provider.Start(provider.New())
	if err != nil {
		return say(stderr, exitFailed, fmt.Sprintf("com: %v\n", err))
	}
	idle := provider.References() // of COM itself
	begin := time.Now()
	for used := begin; time.Since(used) < comIdle && time.Since(begin) < comLimit; time.Sleep(comPause) {
		if provider.References() > idle {
			used = time.Now()
		}
	}
	if err := server.Close(); err != nil {
		return say(stderr, exitFailed, fmt.Sprintf("com: %v\n", err))
	}
	return exitOK
}
