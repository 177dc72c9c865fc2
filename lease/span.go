package lease

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/status"
)

// Spans are made for callers whose own span is recorded, and for nobody else. One
// that is not made is nil.

// beginWait begins the span of a write that waits for its batch.
func (b *batcher) beginWait(ctx context.Context) trace.Span {
	if b.m.tracer == nil || !trace.SpanFromContext(ctx).IsRecording() {
		return nil
	}
	_, span := b.m.tracer.Start(ctx, "batch wait")
	return span
}

// beginBatch ends the waits of batch and begins its span. A batch belongs to all of
// its members, so it is a trace of its own, linked with each of theirs both ways.
func (b *batcher) beginBatch(batch []*write) trace.Span {
	if b.m.tracer == nil {
		return nil
	}
	var links []trace.Link
	for _, w := range batch {
		if w.wait != nil {
			links = append(links, trace.Link{SpanContext: w.wait.SpanContext()})
		}
	}
	if len(links) == 0 {
		return nil
	}
	_, span := b.m.tracer.Start(context.Background(), "batch", trace.WithNewRoot(), trace.WithLinks(links...),
		trace.WithAttributes(attribute.Int("streamcount.batch.writes", len(batch))))
	for _, w := range batch {
		if w.wait != nil {
			w.wait.AddLink(trace.Link{SpanContext: span.SpanContext()})
			w.wait.End()
		}
	}
	return span
}

// giveUp ends the wait of a write that is not sent.
func (w *write) giveUp() {
	if w.wait != nil {
		w.wait.SetStatus(codes.Error, "given up before it was sent")
		w.wait.End()
	}
}

// end ends a span that may be nil.
func end(span trace.Span) {
	if span != nil {
		span.End()
	}
}

// begin begins a call to etcd.
func (m *measures) begin(ctx context.Context, call int) (time.Time, trace.Span) {
	return time.Now(), m.spanOf(ctx, call)
}

func (m *measures) spanOf(ctx context.Context, call int) trace.Span {
	if m.tracer == nil || !trace.SpanFromContext(ctx).IsRecording() {
		return nil
	}
	_, span := m.tracer.Start(ctx, "etcd "+EtcdCalls[call], trace.WithSpanKind(trace.SpanKindClient))
	return span
}

// endCall ends the span of a call. The error's text may name keys, and stays out.
func endCall(span trace.Span, err error) {
	if span == nil {
		return
	}
	if err != nil {
		span.SetStatus(codes.Error, status.Code(err).String())
	}
	span.End()
}
