package admission

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestRoom has 40 runs of four hosts and two datastores go in and out, and wants no place ever over its limit, and none empty
// while somebody waits for ever.
func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		room := NewRoom()
		var mu sync.Mutex
		now, most := map[string]int{}, map[string]int{}
		var group sync.WaitGroup
		for n := range 40 {
			places := []Place{{"vc", 8}, {"host" + string(rune('a'+n%4)), 3}, {"ds" + string(rune('a'+n%2)), 4}}
			if n%3 == 0 {
				slices.Reverse(places)
			}
			group.Go(func() {
				leave, err := room.Enter(t.Context(), places)
				if err != nil {
					t.Error(err)
					return
				}
				defer leave()
				mu.Lock()
				for _, p := range places {
					now[p.Name]++
					most[p.Name] = max(most[p.Name], now[p.Name])
					if now[p.Name] > p.Most {
						t.Errorf("%d are in %s", now[p.Name], p.Name)
					}
				}
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				for _, p := range places {
					now[p.Name]--
				}
				mu.Unlock()
			})
		}
		begun := time.Now()
		group.Wait()
		if took := time.Since(begun); took < 5*time.Second || took > 40*time.Second {
			t.Errorf("40 runs of a second, 8 at once, took %v", took)
		}
		if most["vc"] < 4 {
			t.Errorf("at most %d were there at once", most["vc"])
		}
	})
}

// TestRoomFull gives nothing to whoever's time is over, and keeps nothing of it.
func TestRoomFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		room := NewRoom()
		leave, err := room.Enter(t.Context(), []Place{{"b", 1}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := room.Enter(ctx, []Place{{"b", 1}, {"a", 1}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Enter = %v, want the end of its time", err)
		}
		leave()
		again, err := room.Enter(t.Context(), []Place{{"a", 1}, {"b", 1}})
		if err != nil {
			t.Fatal(err)
		}
		again()
	})
}
