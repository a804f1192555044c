package watchrtc

import "testing"

// The compressed forms were made by the lz-string of the SDK.
func TestDecompress(t *testing.T) {
	for plain, compressed := range map[string]string{
		"[]": "NoXSA",
		`[["getstats","PC_0",{"timestamp":1},1700000000000]]`: "NrBEHMFMBcGdoIZ1AGlABQMIH0AMqBvUaASwFtJ4EyAHUALgEYBfFRgdly+59wF0+QA",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa":                      "IY18ZJA",
		"é你好 😀 mixed 你好":                                      "JeA3lL6aAEi8G4AHsQtgSwB4FMAmFxA",
	} {
		got, err := decompress(compressed)
		if err != nil || got != plain {
			t.Errorf("%s: got %q, %v, want %q", compressed, got, err, plain)
		}
	}
	for _, s := range []string{"", "N", "NoX", "not one!", "////"} {
		if got, err := decompress(s); err == nil {
			t.Errorf("%q: got %q, want an error", s, got)
		}
	}
}
