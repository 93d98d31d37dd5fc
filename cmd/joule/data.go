package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/catalog"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/spec"
	"github.com/jouleml/joule/train"
)

// openData opens what a specification names; runs is the folder of runs, in which it may name models.
func openData(s *spec.Spec, runs string) (*data.Set, error) {
	if s.Resolve == nil {
		s.Resolve = modelFlags{out: runs}.file
	}
	like, err := s.Like()
	if err != nil {
		return nil, err
	}
	set, err := catalog.OpenLike(s.Data, like)
	if err != nil {
		return nil, err
	}
	return s.Ready(set)
}

// openLike opens a data set in the form of the one that a model was trained on, normalised as the model wants it.
func openLike(name string, m *train.Model) (*data.Set, error) {
	set, err := catalog.OpenLike(name, m.Spec)
	if err != nil {
		return nil, err
	}
	if err := alike(set.Spec().Inputs, m.Spec.Inputs); err != nil {
		return nil, fmt.Errorf("%s does not fit the model: %w", name, err)
	}
	if set, err = m.Spec.Norm.ApplySet(set); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return set, nil
}

// alike reports inputs that a model cannot take; lengths of axes aside, which some models leave open.
func alike(has, takes []data.Field) error {
	list := func(fs []data.Field) string {
		var out []string
		for _, f := range fs {
			out = append(out, fmt.Sprintf("%s %v%v", f.Name, f.DType, f.Shape))
		}
		return strings.Join(out, ", ")
	}
	fits := len(has) == len(takes)
	for i := range min(len(has), len(takes)) {
		fits = fits && has[i].DType == takes[i].DType && len(has[i].Shape) == len(takes[i].Shape)
	}
	if fits {
		return nil
	}
	return fmt.Errorf("it has %s, the model takes %s", list(has), list(takes))
}

func dataCmd() *cobra.Command {
	c := &cobra.Command{Use: "data", Short: "List, get and describe data sets"}
	var asJSON bool
	list := &cobra.Command{
		Use: "list", Short: "List the data sets that have a name", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(catalog.List())
			}
			for _, i := range catalog.List() {
				where := i.Where
				if where == "" {
					where = "not here: joule data get " + i.Name + " (" + energy.SI(float64(i.Bytes()), "B") + ")"
				}
				fmt.Fprintf(c.OutOrStdout(), "%-15s %-45s %6d + %d  %s\n", i.Name, i.What, i.Train, i.Test, where)
			}
			for _, i := range catalog.Models() {
				where := i.Where
				if where == "" {
					where = "not here: joule data get " + i.Name + " (" + energy.SI(float64(i.Bytes()), "B") + ")"
				}
				fmt.Fprintf(c.OutOrStdout(), "%-15s a model: %s  %s\n", i.Name, i.What, where)
			}
			fmt.Fprintln(c.OutOrStdout(), "Any folder of class folders of pictures (folder:PATH), table (csv:PATH), text (text:PATH), pairs of texts (pairs:PATH), texts with a class each (labelled:PATH) or table of time series (series:PATH) can be used too.")
			return nil
		},
	}
	list.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	get := &cobra.Command{
		Use: "get NAME", Short: "Download a data set from its official address (or the mirror in JOULE_DATA_MIRROR)", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			dir, err := catalog.Get(c.Context(), args[0], nil)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is in %s\n", args[0], dir)
			return nil
		},
	}
	info := &cobra.Command{
		Use: "info NAME", Short: "Describe a data set", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return dataInfo(c, args[0]) },
	}
	c.AddCommand(list, get, info)
	for _, s := range c.Commands() {
		s.Args = usageArgs(s.Args)
	}
	return c
}

func dataInfo(c *cobra.Command, name string) error {
	w := c.OutOrStdout()
	if i, err := catalog.Find(name); err == nil {
		fmt.Fprintf(w, "%s: %s\nlicence %s, %s\n", i.Name, i.What, i.Licence, i.Home)
		for _, f := range i.Files {
			fmt.Fprintf(w, "  %s  %s  sha256 %s\n", f.URL, energy.SI(float64(f.Bytes), "B"), f.SHA256)
		}
		if i.Where == "" {
			fmt.Fprintf(w, "not on this machine: joule data get %s\n", i.Name)
			return nil
		}
		fmt.Fprintln(w, "found:", i.Where)
	}
	set, err := catalog.Open(name)
	if err != nil {
		return err
	}
	s := set.Spec()
	fmt.Fprintf(w, "%d training and %d test examples\n", set.Train.Len(), set.Test.Len())
	for _, f := range s.Inputs {
		fmt.Fprintf(w, "input %s: %v%v\n", f.Name, f.DType, f.Shape)
	}
	for _, f := range s.Targets {
		fmt.Fprintf(w, "target %s: %v%v\n", f.Name, f.DType, f.Shape)
	}
	if s.Classes > 0 {
		fmt.Fprintf(w, "%d classes %s\n", s.Classes, strings.Join(s.ClassNames, ", "))
	}
	return nil
}
