package forecast

import (
	_ "embed"

	"bytes"
	"compress/gzip"
	"encoding/csv"
	"fmt"
	"strconv"
)

//go:embed stocks.csv.gz
var stocks []byte

// Stocks is daily prices, adjusted for splits and dividends, and volumes of Apple, IBM and Microsoft from March 2000 to March 2013 (public domain; LICENSE.stocks): columns AAPL, IBM, MSFT,
// "AAPL volume" and so on.
func Stocks() (*Table, error) {
	damaged := func(err error) error { return fmt.Errorf("forecast: stocks: the binary is damaged: %w", err) }
	z, err := gzip.NewReader(bytes.NewReader(stocks))
	if err != nil {
		return nil, damaged(err)
	}
	recs, err := csv.NewReader(z).ReadAll()
	if err != nil {
		return nil, damaged(err)
	}
	tickers := []string{"AAPL", "IBM", "MSFT"}
	rows := map[string][]float64{} // by date: prices, then volumes
	seen := map[string]int{}
	var dates []string
	for _, r := range recs[1:] { // Ticker,Date,Open,High,Low,Close,Volume,Adj Close
		for i, name := range tickers {
			if r[0] != name {
				continue
			}
			if rows[r[1]] == nil {
				rows[r[1]] = make([]float64, 2*len(tickers))
				dates = append(dates, r[1])
			}
			seen[r[1]]++
			for k, text := range []string{r[7], r[6]} {
				v, err := strconv.ParseFloat(text, 64)
				if err != nil {
					return nil, damaged(err)
				}
				rows[r[1]][k*len(tickers)+i] = v
			}
		}
	}
	t := &Table{Names: append([]string{}, tickers...)}
	for _, n := range tickers {
		t.Names = append(t.Names, n+" volume")
	}
	for _, d := range dates {
		if seen[d] == len(tickers) {
			t.Times, t.Values = append(t.Times, d), append(t.Values, rows[d])
		}
	}
	return t, nil
}
