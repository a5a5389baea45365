package advice

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Writer is what is known of one VSS writer.
type Writer struct {
	// ClassID is the writer's class in lower case without braces, Name its own name.
	ClassID, Name string
	// Code is the finding about this writer's failures.
	Code Code
	// Service hosts the writer, empty when it is not known; Sure says whether that is documented. It may be named, and is
	// never restarted by us.
	Service string
	Sure    bool
	// FreezeLimit is how long the writer stays frozen before it gives up (20 s for Exchange, Veeam KB1680; 60 s is the
	// default of VSS).
	FreezeLimit time.Duration
	Note        string
	// Source is where the writer was read of.
	Source string
}

// entry is the writer's place in the catalogue: what to do when it fails. What went wrong has a code of its own, that of
// its state and of its result.
func (w Writer) entry() Entry {
	steps := []string{"read the findings of its state and result in the same run"}
	switch {
	case w.Service != "" && w.Sure:
		steps = append(steps, "look at the service "+w.Service+" and at the Application event log from around the freeze")
	case w.Service != "":
		steps = append(steps, "look at the service that hosts it, probably "+w.Service+", and at the Application event log from around the freeze")
	default:
		steps = append(steps, "look at the Application event log from around the freeze")
	}
	steps = append(steps, "restart that service, or the server, only in a maintenance window; tolerate or exclude the writer if its application need not be consistent")
	e := Entry{
		Code: w.Code, Name: slug(w.Name) + "_failed", Phase: "post", Retryable: "nested", Source: w.Source, Confidence: "documented",
		Meaning: fmt.Sprintf("the VSS writer %q failed; it stays frozen for at most %d s", w.Name, int(w.FreezeLimit.Seconds())),
		Advice:  strings.Join(steps, "; "),
	}
	if w.Note != "" {
		e.Meaning += " (" + w.Note + ")"
	}
	return e
}

// slug is a name in lower case letters and digits, words joined by underscores.
func slug(name string) string {
	words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
	return strings.Join(words, "_")
}

// DefaultFreezeLimit is the limit of a writer of which nothing else is known (Microsoft, CVssWriter::Initialize).
const DefaultFreezeLimit = 60 * time.Second

// unknownWriter is the finding about a writer that is not in the table.
const unknownWriter Code = "SF4500"

//go:embed data/vss-writers.csv
var writersCSV string

const writerColumns = "writer_id,name,sf_code,hosting_service,hosting_service_confidence,freeze_limit_s,freeze_limit_basis,note,source,service_source,confidence"

var writers = sync.OnceValue(func() map[string]Writer {
	table, err := parseWriters(writersCSV)
	if err != nil {
		panic(err)
	}
	return table
})

// Writers gives the table of known writers by class id.
func Writers() map[string]Writer { return writers() }

// WriterOf looks a writer up by its class id, with or without braces. One that is not known gets the name that it says,
// the default limit and the code of unknown writers.
func WriterOf(classID, name string) Writer {
	id := strings.ToLower(strings.Trim(classID, "{}"))
	if w, ok := writers()[id]; ok {
		return w
	}
	return Writer{ClassID: id, Name: name, Code: unknownWriter, FreezeLimit: DefaultFreezeLimit}
}

func parseWriters(text string) (map[string]Writer, error) {
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read the table of writers: %w", err)
	}
	if len(rows) == 0 || strings.Join(rows[0], ",") != writerColumns {
		return nil, fmt.Errorf("read the table of writers: the first line is not %q", writerColumns)
	}
	table := map[string]Writer{}
	for _, row := range rows[1:] {
		limit, err := strconv.Atoi(row[5])
		if err != nil || limit <= 0 {
			return nil, fmt.Errorf("read the table of writers: %s has the freeze limit %q", row[1], row[5])
		}
		if _, twice := table[row[0]]; twice {
			return nil, fmt.Errorf("read the table of writers: %s is there twice", row[0])
		}
		table[row[0]] = Writer{
			ClassID: row[0], Name: row[1], Code: Code(row[2]), Service: row[3], Sure: row[4] == "documented",
			FreezeLimit: time.Duration(limit) * time.Second, Note: row[7], Source: row[8],
		}
	}
	return table, nil
}
