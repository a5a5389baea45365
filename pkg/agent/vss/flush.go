package vss

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// flushLimit bounds the flush right before a hold in mode writer: the writers are frozen already.
const flushLimit = 3 * time.Second

// Flusher writes one volume's cache to its disk.
type Flusher interface {
	Flush() error
	Close() error
}

// caches are the open volumes of a set in mode writer, one goroutine each while they are flushed.
type caches struct {
	volumes []Flusher
	running sync.WaitGroup
}

// flush empties all caches at once, and says full, partial or none: how many were done when the limit came, or stop.
func (c *caches) flush(stop <-chan struct{}) string {
	var done atomic.Int32
	ended := make(chan struct{}, len(c.volumes))
	for _, v := range c.volumes {
		c.running.Go(func() {
			if v.Flush() == nil {
				done.Add(1)
			}
			ended <- struct{}{}
		})
	}
	limit := time.NewTimer(flushLimit)
	defer limit.Stop()
	for left := len(c.volumes); left > 0; left-- {
		select {
		case <-ended:
		case <-stop:
			left = 0
		case <-limit.C:
			left = 0
		}
	}
	switch int(done.Load()) {
	case len(c.volumes):
		return "full"
	case 0:
		return "none"
	}
	return "partial"
}

// close waits for flushes that are late, which cannot be interrupted, and closes the volumes.
func (c *caches) close() error {
	c.running.Wait()
	var errs []error
	for _, v := range c.volumes {
		errs = append(errs, v.Close())
	}
	c.volumes = nil
	return errors.Join(errs...)
}
