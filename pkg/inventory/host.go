package inventory

// Host is the ESXi host that runs a VM, as vCenter tells it.
type Host struct {
	// Name is its name in the inventory; Moref is good only on the endpoint that gave it.
	Name, Moref string
	// Address is where its own SDK answers, host:port.
	Address string
	// Thumbprint is the SHA-1 or SHA-256 of its certificate in hex, empty when vCenter does not say.
	Thumbprint string
	// ConnectionState is connected, or why vCenter cannot reach it.
	ConnectionState string
}
