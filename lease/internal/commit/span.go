package commit

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// A span is created only for a caller whose own span is recorded. Otherwise it is nil.

// startWaitSpan starts the span of a write that waits for its batch.
func (b *Batcher) startWaitSpan(ctx context.Context) trace.Span {
	if b.cfg.Tracer == nil || !trace.SpanFromContext(ctx).IsRecording() {
		return nil
	}
	_, span := b.cfg.Tracer.Start(ctx, "batch wait")
	return span
}

// startBatchSpan ends the wait spans of batch and starts the span of the batch. A batch
// belongs to all of its writes. So its span is the root of a separate trace, and it and
// the wait spans are linked to each other.
func (b *Batcher) startBatchSpan(batch []*Write) trace.Span {
	if b.cfg.Tracer == nil {
		return nil
	}
	var links []trace.Link
	for _, w := range batch {
		if w.waitSpan != nil {
			links = append(links, trace.Link{SpanContext: w.waitSpan.SpanContext()})
		}
	}
	if len(links) == 0 {
		return nil
	}
	_, span := b.cfg.Tracer.Start(context.Background(), "batch", trace.WithNewRoot(), trace.WithLinks(links...),
		trace.WithAttributes(attribute.Int("streamcount.batch.writes", len(batch))))
	for _, w := range batch {
		if w.waitSpan != nil {
			w.waitSpan.AddLink(trace.Link{SpanContext: span.SpanContext()})
			w.waitSpan.End()
		}
	}
	return span
}

// cancelSpan ends the wait span of a write that is not sent.
func (w *Write) cancelSpan() {
	if w.waitSpan != nil {
		w.waitSpan.SetStatus(codes.Error, "cancelled before it was sent")
		w.waitSpan.End()
	}
}

// endSpan ends span if it is not nil.
func endSpan(span trace.Span) {
	if span != nil {
		span.End()
	}
}
