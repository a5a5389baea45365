package advice

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Code is the stable code of a failure, such as SF2001. The first digit says where: 1 configuration, 2 vSphere,
// 3 guest access, 4 freeze, 5 transfer, 6 repository. A code never changes its meaning.
type Code string

// Entry is what the catalogue knows of one code.
type Entry struct {
	Code Code
	// Name is the code in words, such as vsphere_login_refused; code and name belong one to one.
	Name    string
	Meaning string
	// Advice holds the steps, separated by "; ".
	Advice string
	// Phase is the part of a run in which the code is met.
	Phase string
	// Retryable is yes, no, once, after-fix, backoff-10m-x3, nested (the inner cause decides) or n/a.
	Retryable string
	// Source is where the meaning was read, Confidence how sure it is: documented, header or inferred.
	Source, Confidence string
	// Causes are all that lead to this code, in the order of the catalogue; the rows of our own rules are not among them.
	Causes []Cause
}

// Cause is one foreign error that leads to a code.
type Cause struct {
	// Domain is the system that speaks, such as vsphere_fault; Code and Symbol are its own number and name.
	Domain, Code, Symbol string
	Meaning, Advice      string
}

// Steps are the single steps of the advice, in order; it is never nil.
func (e Entry) Steps() []string {
	steps := []string{}
	for step := range strings.SplitSeq(e.Advice, "; ") {
		if step = strings.TrimSpace(step); step != "" {
			steps = append(steps, step)
		}
	}
	return steps
}

// ownDomain marks the rows that are our own rules. Such a row wins over a foreign one with the same code, because it
// says what the code means to us whatever system it came from.
const ownDomain = "stillframe"

// catalogueCSV is the registry of all codes.
//
//go:embed data/error-catalogue.csv
var catalogueCSV string

// catalogue is the parsed registry, read at first use. An embedded file that cannot be read is a fault of the build.
var catalogue = sync.OnceValue(func() map[Code]Entry {
	entries, err := index(rows())
	if err != nil {
		panic(err)
	}
	for _, w := range Writers() {
		entries[w.Code] = w.entry()
	}
	return entries
})

// rows are the registry's lines, read at first use.
var rows = sync.OnceValue(func() [][]string {
	all, err := lines(catalogueCSV)
	if err != nil {
		panic(err)
	}
	return all
})

// Lookup gives the entry of a code, and whether there is one.
func Lookup(code Code) (Entry, bool) {
	e, ok := catalogue()[code]
	return e, ok
}

// Codes lists every code of the catalogue in rising order.
func Codes() []Code {
	codes := make([]Code, 0, len(catalogue()))
	for code := range catalogue() {
		codes = append(codes, code)
	}
	slices.Sort(codes)
	return codes
}

// columns are the columns of the registry, in order.
const columns = "domain,code,symbol,sf_code,sf_name,meaning,phase,retryable,advice,source,confidence"

// lines reads the registry without its first line.
func lines(text string) ([][]string, error) {
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read the error catalogue: %w", err)
	}
	if len(rows) == 0 || strings.Join(rows[0], ",") != columns {
		return nil, fmt.Errorf("read the error catalogue: the first line is not %q", columns)
	}
	return rows[1:], nil
}

// index gathers the rows by our codes. Rows without one are information only and left out.
func index(rows [][]string) (map[Code]Entry, error) {
	entries := map[Code]Entry{}
	own := map[Code]bool{}
	for _, row := range rows {
		code := Code(row[3])
		if code == "" {
			continue
		}
		e, known := entries[code]
		if known && e.Name != row[4] {
			return nil, fmt.Errorf("read the error catalogue: %s has two names, %s and %s", code, e.Name, row[4])
		}
		isOwn := row[0] == ownDomain
		if isOwn && own[code] {
			return nil, fmt.Errorf("read the error catalogue: %s has two rows of our own", code)
		}
		causes := e.Causes
		if !isOwn {
			causes = append(causes, Cause{Domain: row[0], Code: row[1], Symbol: row[2], Meaning: row[5], Advice: row[8]})
		}
		if !known || isOwn {
			e = Entry{
				Code: code, Name: row[4], Meaning: row[5], Advice: row[8],
				Phase: row[6], Retryable: row[7], Source: row[9], Confidence: row[10],
			}
		}
		own[code] = own[code] || isOwn
		e.Causes = causes
		entries[code] = e
	}
	return entries, nil
}
