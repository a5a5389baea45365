//go:build nolgpl

package adminshare

import (
	"context"
	"errors"
	"net"
)

// openCloudsoda refuses: this build was made without the library, whose package for access lists has the licence LGPL-3.0.
func openCloudsoda(context.Context, net.Conn, string, Account) (client, error) {
	return nil, errors.New("this build has no SMB library for servers that sign and do not encrypt: use one that was not made with the tag nolgpl, or require encryption in the guest")
}

func readCloudsoda(error) (failure, bool) { return failure{}, false }
