package provider

import "github.com/stillframe/stillframe/pkg/agent/com"

// ID is the provider's id in VSS and in AddToSnapshotSet; it never changes.
func ID() com.GUID { return com.MustGUID("1ff4bafb-1cad-4364-8592-221443e14ef6") }

// ClassID is the provider's COM class; it never changes.
func ClassID() com.GUID { return com.MustGUID("c9bbb1b2-2fae-46ce-ad73-ba48df4715d1") }

// VersionID changes with every release line.
func VersionID() com.GUID { return com.MustGUID("4d80892c-e1ff-4c94-842d-f0acb266c0ec") }
