// A consume-produce loop on franz-go, as its users write it: poll, produce with the record's own partition, key, headers
// and timestamp, commit what was acknowledged. The fast Go client is the fair rival: no runtime of a framework beside it.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"log"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	source := flag.String("source", "", "host:port,... of the source")
	sourceCA := flag.String("source-ca", "", "PEM file; empty: no TLS")
	target := flag.String("target", "", "host:port,... of the target")
	targetCA := flag.String("target-ca", "", "PEM file; empty: no TLS")
	from := flag.String("from", "", "source topic")
	to := flag.String("to", "", "target topic")
	codec := flag.String("codec", "none", "none, lz4, zstd")
	batch := flag.Int("batch", 1<<20, "bytes of a batch at most")
	flag.Parse()

	options := func(seeds, ca string) []kgo.Opt {
		opts := []kgo.Opt{kgo.SeedBrokers(strings.Split(seeds, ",")...)}
		if ca == "" {
			return opts
		}
		pem, err := os.ReadFile(ca)
		if err != nil {
			log.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		return append(opts, kgo.DialTLSConfig(&tls.Config{RootCAs: pool}))
	}
	consumer, err := kgo.NewClient(append(options(*source, *sourceCA),
		kgo.ConsumerGroup("franz."+*to), kgo.ConsumeTopics(*from),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.AutoCommitMarks(),
		kgo.FetchMaxBytes(16<<20), kgo.FetchMaxPartitionBytes(4<<20))...)
	if err != nil {
		log.Fatal(err)
	}
	compression := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}[*codec]
	producer, err := kgo.NewClient(append(options(*target, *targetCA),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(int32(*batch)),
		kgo.ProducerBatchCompression(compression),
		kgo.MaxBufferedRecords(100_000))...)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	for {
		fetches := consumer.PollFetches(ctx)
		if errs := fetches.Errors(); len(errs) > 0 {
			log.Print(errs)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		fetches.EachRecord(func(record *kgo.Record) {
			out := &kgo.Record{
				Topic: *to, Partition: record.Partition, Key: record.Key, Value: record.Value,
				Headers: record.Headers, Timestamp: record.Timestamp,
			}
			producer.Produce(ctx, out, func(_ *kgo.Record, err error) {
				if err != nil {
					log.Fatal(err)
				}
				consumer.MarkCommitRecords(record)
			})
		})
	}
}
