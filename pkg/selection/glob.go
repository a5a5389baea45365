package selection

// glob says whether text matches the pattern p, in which * stands for any number of letters and ? for one. It takes time in
// proportion to the product of both lengths at worst.
func glob(p []rune, text string) bool {
	t := []rune(text)
	star, from := -1, 0 // the last * seen, and where its letters begin to end
	i, j := 0, 0
	for j < len(t) {
		switch {
		case i < len(p) && p[i] == '*':
			star, from = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == t[j]):
			i++
			j++
		case star >= 0:
			from++
			i, j = star+1, from
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
