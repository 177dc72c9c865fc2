package client

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
)

func TestRules_Requests(t *testing.T) {
	ctx := t.Context()
	for name, tc := range map[string]struct {
		call               func(*Client) error
		method, path, body string
	}{
		"plans":  {func(c *Client) error { _, err := c.Plans(ctx); return err }, "GET", "/api/v1/plans", ""},
		"plan":   {func(c *Client) error { _, err := c.Plan(ctx, "duo"); return err }, "GET", "/api/v1/plans/duo", ""},
		"noPlan": {func(c *Client) error { _, err := c.RemovePlan(ctx, "duo"); return err }, "DELETE", "/api/v1/plans/duo", ""},
		"limit": {
			func(c *Client) error { _, err := c.UserLimit(ctx, "a|b"); return err },
			"GET", "/api/v1/limits/users/a%7Cb", "",
		},
		"noLimit": {
			func(c *Client) error { _, err := c.RemoveUserLimit(ctx, "maya"); return err },
			"DELETE", "/api/v1/limits/users/maya", "",
		},
		"export": {
			func(c *Client) error { _, err := c.ExportUserData(ctx, "a/b"); return err },
			"GET", "/api/v1/data/users/a%2Fb", "",
		},
		"erase": {
			func(c *Client) error { _, err := c.EraseUserData(ctx, "maya"); return err },
			"DELETE", "/api/v1/data/users/maya", "",
		},
		"end": {
			func(c *Client) error {
				where := apitype.Where{"region": {Not: []string{"eu"}}}
				_, err := c.EndStreams(ctx, apitype.EndStreams{Where: where, Max: 5})
				return err
			},
			"POST", "/api/v1/streams/end", `{"where":{"region":{"not":["eu"]}},"max":5}`,
		},
		"setPlan": {
			func(c *Client) error { _, err := c.SetPlan(ctx, "duo", apitype.PlanRule{Limit: new(2)}); return err },
			"PUT", "/api/v1/plans/duo", `{"limit":2}`,
		},
		"setLimit": {
			func(c *Client) error {
				_, err := c.SetUserLimit(ctx, "maya", apitype.LimitRule{Limit: ptr(0)})
				return err
			},
			"PUT", "/api/v1/limits/users/maya", `{"limit":0}`,
		},
		"try": {
			func(c *Client) error {
				_, err := c.TryPlan(ctx, apitype.Try{
					Plan: apitype.PlanRule{Limit: new(1)}, Streams: []apitype.TryStart{{Region: "eu"}}, Start: apitype.TryStart{Start: apitype.Start{Session: "a"}},
				})
				return err
			},
			"POST", "/api/v1/plans/try", `{"plan":{"limit":1},"streams":[{"region":"eu"}],"start":{"session":"a"}}`,
		},
		"explain": {
			func(c *Client) error { _, err := c.ExplainLimits(ctx, "a|b"); return err },
			"GET", "/api/v1/limits/users/a%7Cb/explain", "",
		},
		"apply": {
			func(c *Client) error {
				_, err := c.ApplyRules(ctx, apitype.RuleSet{RemoveUsers: []string{"ida"}, Revision: 7})
				return err
			},
			"POST", "/api/v1/rules", `{"removeUsers":["ida"],"revision":7}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var credential string
			c, w := newClient(t, Config{Credential: "secret"}, func(r *http.Request) (*http.Response, error) {
				credential = r.Header.Get("Authorization")
				return good(struct{}{})
			})
			require.NoError(t, tc.call(c))
			sent := w.requests("")
			require.Len(t, sent, 1)
			assert.Equal(t, tc.method, sent[0].method)
			assert.Equal(t, tc.path, sent[0].path)
			if tc.body != "" {
				assert.JSONEq(t, tc.body, sent[0].body)
			}
			assert.Equal(t, "Bearer secret", credential)
		})
	}
}

func TestRules_Answers(t *testing.T) {
	c, w := newClient(t, Config{}, func(r *http.Request) (*http.Response, error) {
		assert.Empty(t, r.Header["Authorization"])
		return problem(apitype.Problem{Status: 404, Limit: ptr(3), Detail: "No limit for this user."})
	})
	_, err := c.UserLimit(t.Context(), "maya")
	var p *ProblemError
	require.ErrorAs(t, err, &p)
	assert.Equal(t, 3, *p.Problem.Limit, "the limit in force")

	_, err = c.UserLimit(t.Context(), "a\n")
	require.ErrorIs(t, err, ErrInvalid)
	_, err = c.EraseUserData(t.Context(), "a\n")
	require.ErrorIs(t, err, ErrInvalid)
	_, err = c.SetPlan(t.Context(), "../x", apitype.PlanRule{})
	require.ErrorIs(t, err, ErrInvalid)
	assert.Len(t, w.requests(""), 1, "what cannot be meant is not sent")
}
