// Package foreign names what is tested: suites of other clients, run against the embedded broker by ./run.
package foreign

import _ "github.com/twmb/franz-go/pkg/kgo"
