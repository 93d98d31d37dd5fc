// Package rss tells how much memory the process has had in RAM at most.
package rss
