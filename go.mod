module github.com/jouleml/joule

go 1.26.0

require (
	golang.org/x/sys v0.49.0
	google.golang.org/protobuf v1.36.12
)
