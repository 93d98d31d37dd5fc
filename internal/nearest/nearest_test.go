package nearest

import "testing"

func TestName(t *testing.T) {
	known := []string{"mnist", "fashion-mnist", "cifar10", "cifar100"}
	for word, want := range map[string]string{
		"mnsit":         "mnist", // an exchange of neighbours is one edit
		"MNIST":         "mnist",
		"fashion_mnist": "fashion-mnist",
		"cifar-10":      "cifar10",
		"cifar1000":     "cifar100",
		"imagenet":      "",
		"":              "",
	} {
		if got := Name(word, known); got != want {
			t.Errorf("Name(%q) = %q, want %q", word, got, want)
		}
	}
	if got := Hint("mnits", known); got != `, did you mean "mnist"?` {
		t.Errorf("Hint: %q", got)
	}
	if got := Hint("zebra", known); got != "" {
		t.Errorf("Hint: %q", got)
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		d    int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"ab", "ba", 1}, {"abcd", "acbd", 1}, {"ca", "abc", 3}} {
		if got := distance(c.a, c.b); got != c.d {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.d)
		}
	}
}
