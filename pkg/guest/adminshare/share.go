package adminshare

import (
	"context"
	"io"
	"io/fs"
)

// Share is one share of a session, over either library. Paths are relative, with backslashes. Every call blocks until the
// server answers or its ctx ends; after the end of a ctx nothing of the session may be used any more. There is no rename:
// the libraries differ in what it does to a file that is there.
type Share interface {
	// Mkdir makes a folder that must not exist yet: fs.ErrExist.
	Mkdir(ctx context.Context, path string) error
	// Create makes a file that must not exist yet (fs.ErrExist), to be written.
	Create(ctx context.Context, path string) (io.WriteCloser, error)
	Open(ctx context.Context, path string) (io.ReadCloser, error)
	List(ctx context.Context, path string) ([]fs.FileInfo, error)
	// Remove removes a file or an empty folder.
	Remove(ctx context.Context, path string) error
	// Room is how many bytes the account may still write where path is.
	Room(ctx context.Context, path string) (int64, error)
}

// Library is an SMB library.
type Library string

// The libraries.
const (
	// Hirochachacha is github.com/hirochachacha/go-smb2. It takes the interim answer of a server, which is never signed
	// (MS-SMB2 3.2.5.1.3), for a forgery where signing is required and nothing is encrypted.
	Hirochachacha Library = "hirochachacha"
	// Cloudsoda is github.com/cloudsoda/go-smb2, a fork without that defect. A build tagged nolgpl has none.
	Cloudsoda Library = "cloudsoda"
)

// client is one session of a library.
type client interface {
	// mount connects to a share; the error of a share that is not there, or that the account may not use, is the library's.
	mount(ctx context.Context, name string) (Share, error)
	// pipe opens a pipe of IPC$; the calls on it end with ctx.
	pipe(ctx context.Context, name string) (io.ReadWriteCloser, error)
	// logoff says goodbye; the connection is closed by its owner.
	logoff(ctx context.Context) error
}
