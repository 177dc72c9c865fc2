package client

import (
	"context"
	"net/http"

	"streamcount/api/apitype"
)

func dataPath(user string) (string, error) {
	if err := checkUser(user); err != nil {
		return "", err
	}
	return "/api/v1/data/users/" + segment(user), nil
}

// ExportUserData returns everything that the service stores about user. If there is nothing,
// it returns a [*ProblemError] of status 404.
func (c *Client) ExportUserData(ctx context.Context, user string) (apitype.UserData, error) {
	return rule[apitype.UserData](ctx, c, http.MethodGet, dataPath, user, nil, "export the data of ")
}

// EraseUserData ends user's streams and erases everything that the service stores about
// user. If there is nothing, it returns a [*ProblemError] of status 404. The request is sent
// once. After any other error than a ProblemError below 500 the outcome is unknown, and the
// call may be repeated.
func (c *Client) EraseUserData(ctx context.Context, user string) (apitype.ErasedData, error) {
	return rule[apitype.ErasedData](ctx, c, http.MethodDelete, dataPath, user, nil, "erase the data of ")
}
