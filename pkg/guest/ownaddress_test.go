package guest

import (
	"fmt"
	"testing"
)

func TestOwnAddresses(t *testing.T) {
	if got := fmt.Sprint(OwnAddresses([]string{"127.0.0.1", "", "guest.example", "127.3.4.5", "127.0.0.1"})); got != "[127.0.0.1]" {
		t.Errorf("OwnAddresses = %s, want loopback's", got)
	}
	if got := OwnAddresses(nil); got != nil {
		t.Errorf("OwnAddresses of nothing = %v", got)
	}
}
