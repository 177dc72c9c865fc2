package api

import (
	"context"
	"errors"

	"streamcount/api/apitype"
	"streamcount/api/internal/problem"
	"streamcount/api/preview"
)

type tryInput struct{ Body apitype.Try }

// tryPlan decides on a start under a plan, and stores neither.
func (s *Server) tryPlan(_ context.Context, in *tryInput) (*reply[apitype.TryResult], error) {
	out, err := preview.Try("body", in.Body)
	if bad, ok := errors.AsType[*preview.InvalidError](err); ok {
		p := problem.Invalid.New(bad.Error())
		p.Errors = bad.Fields
		return nil, p
	}
	return &reply[apitype.TryResult]{out}, err
}

func (s *Server) explainLimits(ctx context.Context, in *userInput) (*reply[apitype.Explanation], error) {
	x, err := s.rules().Explain(ctx, string(in.User))
	if err != nil {
		return nil, err
	}
	return &reply[apitype.Explanation]{preview.Explanation(x)}, nil
}
