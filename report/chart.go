package report

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"html/template"
	"image"
	"image/png"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Lines is a chart of curves over one axis.
type Lines struct {
	Title  string
	X, Y   string // what the axes count
	Unit   string // of Y; "" for plain numbers
	Zero   bool   // the vertical axis begins at 0
	Series []Series
}

// Series is one curve: Y[i] at X[i]. Points that are not finite are left out.
type Series struct {
	Name string
	X, Y []float64
}

// Bars is rows of horizontal bars, each stacked of the same parts.
type Bars struct {
	Title string
	Unit  string
	Parts []string // names of the stacked parts; a single "" for plain bars
	Rows  []Bar
	// Share adds each row's share of the sum of all.
	Share bool
}

// Bar is one row: its values are those of Bars.Parts.
type Bar struct {
	Name   string
	Values []float64
	Note   string // beside the row's total, such as an interval
}

// Points is a scatter of labelled points, such as size against accuracy.
type Points struct {
	Title        string
	X, Y         string
	XUnit, YUnit string
	Points       []Point
	// Front joins the points that no other beats: lower X and higher Y are better.
	Front bool
	// Diagonal draws the line on which X and Y are equal, and gives both axes one scale.
	Diagonal bool
}

// Point is one dot. A label is drawn beside it, if there are few.
type Point struct {
	Label string
	X, Y  float64
}

// Matrix counts pairs: Counts[i][j] of Rows[i] with Columns[j]. Its diagonal is what should be.
type Matrix struct {
	Title         string
	RowTitle      string
	ColumnTitle   string
	Rows, Columns []string
	Counts        [][]int
}

// The charts' size in units of the picture; at most widths a unit is about a pixel.
const (
	chartW, chartH = 400.0, 230.0
	marginL        = 56.0
	marginR        = 12.0
	marginT        = 10.0
	marginB        = 34.0
)

// colours is how many the style sheet has.
const colours = 7

// colourOf is the style sheet's class for the i-th series.
func colourOf(i int) string { return "c" + strconv.Itoa(i%colours) }

// tick is a mark on an axis.
type tick struct {
	At   float64
	Text string
}

// axis maps values to places and has marks at round numbers.
type axis struct {
	lo, hi   float64
	from, to float64
	Ticks    []tick
}

func (a *axis) at(v float64) float64 {
	if a.hi == a.lo {
		return (a.from + a.to) / 2
	}
	return a.from + (v-a.lo)/(a.hi-a.lo)*(a.to-a.from)
}

// newAxis makes an axis for values between lo and hi that ends at round numbers, with about n marks.
func newAxis(lo, hi, from, to float64, n int, unit string, whole bool) *axis {
	if !(lo <= hi) || math.IsInf(lo, 0) || math.IsInf(hi, 0) { // nothing finite
		lo, hi = 0, 1
	}
	if lo == hi {
		d := math.Abs(lo) * 0.1
		if d == 0 {
			d = 1
		}
		lo, hi = lo-d, hi+d
	}
	step := roundStep((hi - lo) / float64(n))
	if whole {
		step = math.Max(1, step)
	} else {
		lo, hi = math.Floor(lo/step+1e-9)*step, math.Ceil(hi/step-1e-9)*step
	}
	a := &axis{lo: lo, hi: hi, from: from, to: to}
	digits := max(0, int(math.Ceil(-math.Log10(step)-1e-9)))
	for i := math.Ceil(lo/step - 1e-9); i*step <= hi+step*1e-6 && len(a.Ticks) < 20; i++ {
		v := i * step
		a.Ticks = append(a.Ticks, tick{a.at(v), tickText(v, digits, unit)})
	}
	return a
}

// roundStep is 1, 2 or 5 times a power of ten, at least x.
func roundStep(x float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(x)))
	for _, m := range []float64{1, 2, 5} {
		if m*p >= x*(1-1e-9) {
			return m * p
		}
	}
	return 10 * p
}

func tickText(v float64, digits int, unit string) string {
	if v == 0 {
		return "0"
	}
	if unit != "" || math.Abs(v) >= 1e5 {
		number, rest, _ := strings.Cut(Quantity(v, unit), " ")
		if strings.Contains(number, ".") && unit != "%" {
			number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
		}
		return strings.TrimSpace(number + " " + rest)
	}
	if math.Abs(v) < 1e-4 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

// curve is a series ready to draw.
type curve struct {
	Name, Class, Path string
	Dash              bool
	Dots              []dot
	Last              string
}

type dot struct {
	X, Y  float64
	Title string
	Label string
	LX    float64
	End   bool // the label ends at the dot
}

// figure is what the template draws of a chart with two axes.
type figure struct {
	W, H           float64
	Left, Right    float64
	Top, Bottom    float64
	XTicks, YTicks []tick
	X, Y           string
	Curves         []curve
	Describe       string
	Legend         bool
}

func newFigure(x, y *axis, xName, yName string) figure {
	return figure{W: chartW, H: chartH, Left: marginL, Right: chartW - marginR, Top: marginT, Bottom: chartH - marginB, XTicks: x.Ticks, YTicks: y.Ticks, X: xName, Y: yName}
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// bounds are the least and greatest finite values.
func bounds(vs ...[]float64) (lo, hi float64) {
	lo, hi = math.Inf(1), math.Inf(-1)
	for _, s := range vs {
		for _, v := range s {
			if finite(v) {
				lo, hi = min(lo, v), max(hi, v)
			}
		}
	}
	return lo, hi
}

// Figure lays the curves out.
func (l *Lines) Figure() figure {
	var xs, ys [][]float64
	for _, s := range l.Series {
		xs, ys = append(xs, s.X), append(ys, s.Y)
	}
	xlo, xhi := bounds(xs...)
	ylo, yhi := bounds(ys...)
	if l.Zero {
		ylo, yhi = min(0, ylo), max(yhi, 0)
	}
	x := newAxis(xlo, xhi, marginL+6, chartW-marginR-6, 6, "", true)
	if xlo == xhi { // a single epoch stands in the middle
		x = &axis{lo: xlo - 1, hi: xhi + 1, from: marginL, to: chartW - marginR}
		x.Ticks = []tick{{x.at(xlo), tickText(xlo, 0, "")}}
	}
	y := newAxis(ylo, yhi, chartH-marginB, marginT, 5, l.Unit, false)
	f := newFigure(x, y, l.X, l.Y)
	f.Legend = len(l.Series) > 1
	var words []string
	for i, s := range l.Series {
		c := curve{Name: s.Name, Class: colourOf(i), Dash: i%2 == 1}
		var b strings.Builder
		move := true
		last := math.NaN()
		for k := range s.Y {
			if !finite(s.Y[k]) || !finite(s.X[k]) {
				move = true
				continue
			}
			letter := "L"
			if move {
				letter = "M"
			}
			move = false
			px, py := x.at(s.X[k]), y.at(s.Y[k])
			fmt.Fprintf(&b, "%s%.1f %.1f", letter, px, py)
			if len(s.Y) <= 60 {
				c.Dots = append(c.Dots, dot{X: round1(px), Y: round1(py), Title: fmt.Sprintf("%s, %s %g: %s", s.Name, l.X, s.X[k], Quantity(s.Y[k], l.Unit))})
			}
			last = s.Y[k]
		}
		c.Path, c.Last = b.String(), Quantity(last, l.Unit)
		f.Curves = append(f.Curves, c)
		if finite(last) {
			words = append(words, fmt.Sprintf("%s ends at %s", s.Name, c.Last))
		}
	}
	f.Describe = strings.Join(words, "; ")
	return f
}

func round1(v float64) float64 { return math.Round(v*10) / 10 }

// Figure lays the points out.
func (p *Points) Figure() figure {
	var xs, ys []float64
	for _, q := range p.Points {
		xs, ys = append(xs, q.X), append(ys, q.Y)
	}
	xlo, xhi := bounds(xs)
	ylo, yhi := bounds(ys)
	if p.Diagonal {
		xlo, ylo = min(xlo, ylo), min(xlo, ylo)
		xhi, yhi = max(xhi, yhi), max(xhi, yhi)
	}
	x := newAxis(xlo, xhi, marginL+6, chartW-marginR-6, 5, p.XUnit, false)
	y := newAxis(ylo, yhi, chartH-marginB, marginT, 5, p.YUnit, false)
	f := newFigure(x, y, p.X, p.Y)
	if p.Diagonal {
		lo, hi := max(x.lo, y.lo), min(x.hi, y.hi)
		f.Curves = append(f.Curves, curve{Class: "rule", Path: fmt.Sprintf("M%.1f %.1fL%.1f %.1f", x.at(lo), y.at(lo), x.at(hi), y.at(hi)), Dash: true})
	}
	if p.Front {
		f.Curves = append(f.Curves, curve{Class: colourOf(1), Path: p.front(x, y)})
	}
	c := curve{Class: colourOf(0)}
	var front []int // places of dots that no other beats
	for _, q := range p.Points {
		if !finite(q.X) || !finite(q.Y) {
			continue
		}
		c.Dots = append(c.Dots, dot{X: round1(x.at(q.X)), Y: round1(y.at(q.Y)), Title: strings.TrimPrefix(fmt.Sprintf("%s: %s, %s", q.Label, Quantity(q.X, p.XUnit), Quantity(q.Y, p.YUnit)), ": "), Label: q.Label})
		beaten := slices.ContainsFunc(p.Points, func(o Point) bool {
			return o.X <= q.X && o.Y >= q.Y && (o.X < q.X || o.Y > q.Y)
		})
		if p.Front && !beaten {
			front = append(front, len(c.Dots)-1)
		}
	}
	c.label(front, len(p.Points) <= 12)
	f.Curves = append(f.Curves, c)
	f.Describe = fmt.Sprintf("%d points of %s against %s", len(c.Dots), p.Y, p.X)
	return f
}

// label keeps the labels of dots that have room for one: those at the front first, and of others only if all are few.
func (c *curve) label(front []int, all bool) {
	names := make([]string, len(c.Dots))
	for i := range c.Dots {
		names[i], c.Dots[i].Label = c.Dots[i].Label, ""
	}
	order := front
	for i := range c.Dots {
		if all && !slices.Contains(front, i) {
			order = append(order, i)
		}
	}
	const letter = 5.2 // units that a letter is wide
	ends := func(d *dot, name string) (from, to float64) {
		w := letter * float64(len([]rune(name)))
		if d.End {
			return d.LX - w, d.LX
		}
		return d.LX, d.LX + w
	}
	for _, i := range order {
		d := &c.Dots[i]
		if d.LX = d.X + 6; d.X > chartW*0.6 {
			d.LX, d.End = d.X-6, true
		}
		from, to := ends(d, names[i])
		taken := slices.ContainsFunc(c.Dots, func(o dot) bool {
			a, b := ends(&o, o.Label)
			return o.Label != "" && math.Abs(o.Y-d.Y) < 11 && from < b && a < to
		})
		if !taken {
			d.Label = names[i]
		}
	}
}

// front is the path through the points that none beats.
func (p *Points) front(x, y *axis) string {
	ps := slices.Clone(p.Points)
	slices.SortFunc(ps, func(a, b Point) int { return cmp.Or(cmp.Compare(a.X, b.X), cmp.Compare(b.Y, a.Y)) })
	var b strings.Builder
	best := math.Inf(-1)
	for _, q := range ps {
		if !finite(q.X) || !finite(q.Y) || q.Y <= best {
			continue
		}
		letter := "L"
		if b.Len() == 0 {
			letter = "M"
		}
		fmt.Fprintf(&b, "%s%.1f %.1f", letter, x.at(q.X), y.at(q.Y))
		best = q.Y
	}
	return b.String()
}

// barRow is a row of bars ready to draw. Widths are shares of the chart's width.
type barRow struct {
	Name, Text string
	Y          float64
	Pieces     []barPiece
}

type barPiece struct {
	X, W  float64
	Class string
	Title string
}

// barsFigure is what the template draws of Bars.
type barsFigure struct {
	W, H   float64
	Rows   []barRow
	Legend []curve
}

// barStep is the height of a row: a line of text and the bar under it.
const barStep = 34.0

// Figure lays the bars out.
func (b *Bars) Figure() barsFigure {
	f := barsFigure{W: chartW, H: barStep*float64(len(b.Rows)) + 2}
	most, all := 0.0, 0.0
	for _, r := range b.Rows {
		most, all = max(most, sum(r.Values)), all+sum(r.Values)
	}
	used := make([]bool, len(b.Parts))
	for i, r := range b.Rows {
		t := sum(r.Values)
		row := barRow{Name: r.Name, Y: barStep * float64(i), Text: Quantity(t, b.Unit)}
		if r.Note != "" {
			row.Text += " " + r.Note
		}
		if b.Share && all > 0 {
			row.Text += fmt.Sprintf(" · %.1f%%", 100*t/all)
		}
		x := 0.0
		for k, v := range r.Values {
			if !finite(v) || v <= 0 || most == 0 {
				continue
			}
			used[k] = true
			w := v / most * chartW
			name := b.Parts[k]
			if name != "" {
				name = ", " + name
			}
			row.Pieces = append(row.Pieces, barPiece{round1(x), math.Max(0.5, round1(w)), partClass(b.Parts[k], k), fmt.Sprintf("%s%s: %s", r.Name, name, Quantity(v, b.Unit))})
			x += w
		}
		f.Rows = append(f.Rows, row)
	}
	stacked := slices.ContainsFunc(f.Rows, func(r barRow) bool { return len(r.Pieces) > 1 })
	for k, name := range b.Parts {
		if name != "" && used[k] && stacked {
			f.Legend = append(f.Legend, curve{Name: name, Class: partClass(name, k)})
		}
	}
	return f
}

// partClass gives phases the same colour in every chart.
func partClass(name string, k int) string {
	if i := slices.Index(phases, name); i >= 0 {
		return colourOf(i)
	}
	return colourOf(k)
}

func sum(vs []float64) float64 {
	t := 0.0
	for _, v := range vs {
		if finite(v) {
			t += v
		}
	}
	return t
}

// Shade is how dark a cell of the matrix is, in percent: its share of the row.
func (m *Matrix) Shade(i, j int) int {
	n := 0
	for _, c := range m.Counts[i] {
		n += c
	}
	if n == 0 || m.Counts[i][j] == 0 {
		return 0
	}
	// A root makes rare mistakes visible beside a full diagonal.
	return max(6, int(math.Round(85*math.Sqrt(float64(m.Counts[i][j])/float64(n)))))
}

// Tone is the style of a cell.
func (m *Matrix) Tone(i, j int) template.CSS { return tone(m.Shade(i, j)) }

// tone is the style of a cell that is so dark, in percent.
func tone(shade int) template.CSS { return template.CSS("--shade:" + strconv.Itoa(shade) + "%") }

// dataURI is a picture as a PNG inside the page.
func dataURI(m image.Image) (template.URL, error) {
	var b strings.Builder
	b.WriteString("data:image/png;base64,")
	e := base64.NewEncoder(base64.StdEncoding, &b)
	if err := png.Encode(e, m); err != nil {
		return "", fmt.Errorf("report: picture: %w", err)
	}
	if err := e.Close(); err != nil {
		return "", fmt.Errorf("report: picture: %w", err)
	}
	return template.URL(b.String()), nil
}
