package api

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"streamcount/api/apitype"
	"streamcount/api/internal/convert"
	"streamcount/api/internal/openapi"
	"streamcount/lease/bulkend"
	"streamcount/lease/userdata"
)

// A dataStore has the methods of a shard.Router that the calls about users' data, and about the
// streams of all users, use.
type dataStore interface {
	UserData(ctx context.Context, user string) (userdata.Data, error)
	EraseUserData(ctx context.Context, user string) (userdata.Erased, error)
	EndStreams(ctx context.Context, q bulkend.Query) (bulkend.Result, error)
}

const dataPath = "/api/v1/data/users/{user}"

func (s *Server) dataRoutes(a huma.API) {
	handle(a, "GET", dataPath, openapi.ExportData(), s.exportData)
	handle(a, "DELETE", dataPath, openapi.EraseData(), s.eraseData)
	handle(a, "POST", "/api/v1/streams/end", openapi.EndStreams(), s.endStreams)
}

func (s *Server) exportData(ctx context.Context, in *userInput) (*reply[*apitype.UserData], error) {
	d, err := s.backend.Load().Data.UserData(ctx, string(in.User))
	if err != nil {
		return nil, err
	}
	return &reply[*apitype.UserData]{convert.UserData(d)}, nil
}

func (s *Server) eraseData(ctx context.Context, in *userInput) (*reply[*apitype.ErasedData], error) {
	e, err := s.backend.Load().Data.EraseUserData(ctx, string(in.User))
	if attrs, ok := outcomeAttrs(err); ok {
		s.audit(ctx, "erase", string(in.User), append(attrs, convert.ErasedAttrs(e)...)...)
	}
	if err != nil {
		return nil, err
	}
	return &reply[*apitype.ErasedData]{convert.ErasedData(string(in.User), e)}, nil
}

type endInput struct{ Body apitype.EndStreams }

func (s *Server) endStreams(ctx context.Context, in *endInput) (*reply[apitype.EndedStreams], error) {
	q, p := convert.EndQuery(in.Body)
	if p != nil {
		return nil, p
	}
	res, err := s.backend.Load().Data.EndStreams(ctx, q)
	if attrs, ok := outcomeAttrs(err); ok && !q.DryRun {
		s.audit(ctx, "end", "", append(attrs, convert.EndAttrs(in.Body, res)...)...)
	}
	if err != nil {
		return nil, err
	}
	return &reply[apitype.EndedStreams]{convert.EndedStreams(q, res)}, nil
}
