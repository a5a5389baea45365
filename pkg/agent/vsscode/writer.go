package vsscode

import (
	"strings"
	"time"
)

// Limits of a writer between its OnFreeze and its OnThaw; a requestor cannot raise them.
const (
	// DefaultHold is what a writer gets that asks for nothing else (vswriter.h, CVssWriter::Initialize).
	DefaultHold = 60 * time.Second
	// ExchangeHold is how long Exchange waits for its thaw (Veeam KB1680; Shadow Copy Creation for Providers).
	ExchangeHold = 20 * time.Second
)

// The class ids of writers whose failure spoils a restore point unless the job says otherwise.
const (
	Exchange  = "76fe1ac4-15f7-4bcd-987e-8e1acb462fb7"
	SQLServer = "a65faa63-5ea8-4ebc-9dbd-a0c4db26912a" // unverified on a real system
	NTDS      = "b2014c9e-8711-4c5c-a5a9-3cf384484757" // unverified on a real system
)

// Writer is a kind of VSS writer.
type Writer struct {
	// ClassID is in lower case, without braces.
	ClassID string
	// Name is what the writer calls itself; some put an instance into it.
	Name string
	// Hold is how long it waits between OnFreeze and OnThaw.
	Hold time.Duration
	// Required says that it must be well unless the job says otherwise.
	Required bool
}

// Writers are the kinds known by name: the in-box ones (Microsoft, In-Box VSS Writers), Exchange, SQL Server and Hyper-V.
func Writers() []Writer {
	return []Writer{
		{NTDS, "NTDS", DefaultHold, true},
		{"772c45f8-ae01-4f94-940c-94961864acad", "ADFS VSS Writer", DefaultHold, false},
		{"dd846aaa-a1b6-42a8-aaf8-03dcb6114bfd", "ADAM (instanceN) Writer", DefaultHold, false},
		{"886c43b1-d455-4428-a37f-4d6b9e43f50f", "AD RMS Writer", DefaultHold, false},
		{"be000cbe-11fe-4426-9c58-531aa6355fc4", "ASR Writer", DefaultHold, false},
		{"4969d978-be47-48b0-b100-f328f07ac1e0", "BITS Writer", DefaultHold, false},
		{"6f5b15b5-da24-4d88-b737-63063e3a1f86", "Certificate Authority", DefaultHold, false},
		{"1072ae1c-e5a7-4ea1-9e4a-6f7964656570", "Cluster Shared Volume VSS Writer", DefaultHold, false},
		{"542da469-d3e1-473c-9f4f-7847f01fc64f", "COM+ REGDB Writer", DefaultHold, false},
		{"be9ac81e-3619-421f-920f-4c6fea9e93ad", "Dhcp Jet Writer", DefaultHold, false},
		{"12ce4370-5bb7-4c58-a76a-e5d5097e3674", "FSRM Writer", DefaultHold, false},
		{"2a40fd15-dfca-4aa8-a654-1f8c654603f6", "IIS Configuration Writer", DefaultHold, false},
		{"59b1f0cf-90ef-465f-9609-6ca8b2938366", "IIS Metabase Writer", DefaultHold, false},
		{"7e47b561-971a-46e6-96b9-696eeaa53b2a", "MSMQ Writer (SvcName)", DefaultHold, false},
		{"cd3f2362-8bef-46c7-9181-d62844cdc0b2", "MSSearch Service Writer", DefaultHold, false},
		{"35e81631-13e1-48db-97fc-d5bc721bb18a", "NPS VSS Writer", DefaultHold, false},
		{"0bada1de-01a9-4625-8278-69e735f39dd2", "Performance Counters Writer", DefaultHold, false},
		{"afbab4a2-367d-4d15-a586-71dbb18f8485", "Registry Writer", DefaultHold, false},
		{"368753ec-572e-4fc7-b4b9-ccd9bdc624cb", "TS Gateway Writer", DefaultHold, false},
		{"5382579c-98df-47a7-ac6c-98a6d7106e09", "TermServLicensing", DefaultHold, false},
		{"4dc3bdd4-ab48-4d07-adb0-3bee2926fd7f", "Shadow Copy Optimization Writer", DefaultHold, false},
		{"d46bf321-fdba-4a35-8ec3-454df03bc86a", "Sync Share Service VSS writer", DefaultHold, false},
		{"e8132975-6f93-4464-a53e-1050253ae220", "System Writer", DefaultHold, false},
		{"d61d61c8-d73a-4eee-8cdd-f6f9786b7124", "Task Scheduler Writer", DefaultHold, false},
		{"75dfb225-e2e4-4d39-9ac9-ffaff65ddf06", "VSS Express Writer Metadata Store Writer", DefaultHold, false},
		{"82cb5521-68db-4626-83a4-7fc6f88853e9", "WDS VSS Writer", DefaultHold, false},
		{"8d5194e1-e455-434a-b2e5-51296cce67df", "WIDWriter", DefaultHold, false},
		{"f08c1483-8407-4a26-8c26-6c267a629741", "WINS Jet Writer", DefaultHold, false},
		{"a6ad56c2-b509-4e6c-bb19-49d8f43532f0", "WMI Writer", DefaultHold, false},
		{Exchange, "Microsoft Exchange Writer", ExchangeHold, true},
		{SQLServer, "SqlServerWriter", DefaultHold, true},
		{"66841cd4-6ded-4f4b-8f17-fd23f8ddc3de", "Microsoft Hyper-V VSS Writer", DefaultHold, false},
	}
}

// LookupWriter finds a kind of writer by its class id, in any case.
func LookupWriter(classID string) (Writer, bool) {
	for _, w := range Writers() {
		if strings.EqualFold(w.ClassID, classID) {
			return w, true
		}
	}
	return Writer{}, false
}
