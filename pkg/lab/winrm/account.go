package winrm

import "strings"

// State says whether an account may log on.
type State string

const (
	// Usable is an account that may; it is the zero value.
	Usable   State = ""
	Disabled State = "disabled"
	Locked   State = "locked"
)

// Account is somebody who may log on. Windows tells a client by 401 alone that he may not, whatever the reason.
type Account struct {
	// Domain is empty for an account of the guest, which is found under every domain.
	Domain, Name, Password string
	State                  State
}

func find(accounts []Account, user, domain string) (Account, bool) {
	for _, a := range accounts {
		if strings.EqualFold(a.Name, user) && (a.Domain == "" || strings.EqualFold(a.Domain, domain)) {
			return a, true
		}
	}
	return Account{}, false
}
