package api

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"streamcount/api/apitype"
	"streamcount/api/internal/convert"
	"streamcount/api/internal/openapi"
	"streamcount/lease/userdata"
)

// A dataStore has the methods of a shard.Router that the calls about users' data use.
type dataStore interface {
	UserData(ctx context.Context, user string) (userdata.Data, error)
	EraseUserData(ctx context.Context, user string) (userdata.Erased, error)
}

const dataPath = "/api/v1/data/users/{user}"

func (s *Server) dataRoutes(a huma.API) {
	handle(a, "GET", dataPath, openapi.ExportData(), s.exportData)
	handle(a, "DELETE", dataPath, openapi.EraseData(), s.eraseData)
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
