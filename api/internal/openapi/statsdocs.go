package openapi

import (
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/api/internal/overload"
	"streamcount/api/internal/problem"
)

// Stats describes the operation of that name.
func Stats() Operation {
	return Operation{
		id: "stats", tag: tagNode, summary: "Totals",
		traits:      Traits{Action: access.ReadTotals, Class: overload.Read},
		description: "Totals over all users, from the replica of this node, and what this node has done since it started.",
		response: apitype.Stats{
			Streams: 3, Users: 2, UsersAtLimit: 1, Regions: map[string]int{"local": 3},
			Admitted: 40, Refused: 2, Expired: 1,
			Node:  apitype.Node{ID: "node-1", Region: "local", Version: "1.0.0", StartedAt: exampleTime(0)},
			Rates: apitype.Rates{Starts: 1.2, Stops: 1.1, Refusals: 0.1, Heartbeats: 0.9},
			Latency: apitype.Latency{
				Start:     apitype.Percentiles{Count: 72, P50: 2.1, P95: 3.4, P99: 6.2},
				Heartbeat: apitype.Percentiles{Count: 54, P50: 0.2, P95: 0.4, P99: 1.1},
				Stop:      apitype.Percentiles{Count: 66, P50: 1.9, P95: 3.1, P99: 5.5},
			},
			Nodes: []apitype.NodeReport{{
				Node:    apitype.Node{ID: "node-1", Region: "local", Version: "1.0.0", StartedAt: exampleTime(0)},
				Address: "10.0.0.7:3000", Admitted: 40, Refused: 2, ReportedAt: exampleTime(0),
			}},
			Leader: "node-1", Shards: []apitype.Shard{{Name: "default", Leader: "node-1", Members: 1, Streams: 3,
				Etcd: []apitype.EtcdMember{{Name: "node-1", Leader: true, Version: "3.7.3", DBSize: 65536, DBInUse: 40960,
					Alarms: []string{}}}}},
			Revision: 1207,
		},
	}
}

// History describes the operation of that name.
func History() Operation {
	return Operation{
		id: "history", tag: tagNode, summary: "Totals of the last hour",
		traits: Traits{Action: access.ReadTotals},
		description: "The totals every ten seconds for up to an hour, as this node recorded them, and what happened in between. A " +
			"node that has just started has few samples.",
		response: apitype.History{EverySeconds: 10, Samples: []apitype.Sample{{
			At: exampleTime(0), Streams: 3, Users: 2, UsersAtLimit: 1, Starts: 12, Stops: 11, Refusals: 1,
			Regions: map[string]int{"local": 3},
		}}},
	}
}

// Concurrency describes the operation of that name.
func Concurrency() Operation {
	return Operation{
		id: "concurrency", tag: tagNode, summary: "How many streams users have at once",
		traits: Traits{Action: access.ReadTotals},
		description: "How many users had one, two, three or more streams at once today (UTC), or since this node started, and how " +
			"many users it refused, by limit. The numbers help to choose a limit.",
		response: apitype.Concurrency{
			Since:   exampleTime(0),
			Reached: []apitype.ReachedCount{{Streams: 1, Users: 120}, {Streams: 2, Users: 31}, {Streams: 3, Users: 9}},
			Refused: []apitype.RefusedCount{{Limit: 3, Users: 4, Starts: 17}},
		},
	}
}

// TopUsers describes the operation of that name.
func TopUsers() Operation {
	return Operation{
		id: "top-users", tag: tagNode, summary: "The users with the most streams",
		traits: Traits{Action: access.ReadTotals, Class: overload.Read},
		description: "The users with the most streams, from the replica of this node, at most a few seconds old: ordered by the number of " +
			"streams, then by name. Use `prefix` to find a user.",
		response: apitype.TopUsers{Users: []apitype.TopUser{{UserID: "maya", Streams: 3, Limit: 3}}, More: true},
	}
}

// Events describes the event stream.
func Events(a huma.API) *huma.Operation {
	op := Operation{
		id: "events", tag: tagNode, summary: "Follow events",
		traits: Traits{Action: access.ReadTotals},
		description: "Server-sent events of starts, stops, expiries and refusals, as they happen; refusals are those of the responding " +
			"node. `data` is an Event. The `id` of an event is a cursor: send it as Last-Event-ID, as browsers do, to receive the " +
			"later events, from any node. An event `gap` means that events were lost, because they are too old or were read too " +
			"slowly: read the totals again. A comment every 15 seconds keeps the connection open. The node ends the response " +
			"after half an hour; connect again.",
	}.Huma(http.MethodGet, "/api/v1/events")
	event := a.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[apitype.Event](), true, "Event")
	op.Parameters = []*huma.Param{
		{Name: "user", In: "query", Description: "Only events of this user, and gaps.", Schema: &huma.Schema{
			Type: huma.TypeString, Pattern: apitype.UserPattern, Examples: []any{"maya"}}},
		{Name: "after", In: "query", Description: "The id of the last event that was received.", Schema: cursorSchema()},
		{Name: "Last-Event-ID", In: "header", Description: "The same. The header takes precedence over the query.", Schema: cursorSchema()},
	}
	example := "id: 1207~k3xqa.12\nevent: stop\ndata: {\"type\":\"stop\",\"at\":\"2026-05-04T20:15:00.250Z\",\"revision\":1207," +
		"\"userId\":\"maya\",\"streams\":1,\"limit\":3,\"reason\":\"stopped\"}\n\n"
	op.Responses["200"] = &huma.Response{
		Description: "Events until the connection ends. The data of each is the JSON of " + event.Ref + ".",
		Content: map[string]*huma.MediaType{"text/event-stream": {
			Schema: &huma.Schema{Type: huma.TypeString}, Example: example,
		}},
	}
	for _, status := range op.Errors {
		op.Responses[strconv.Itoa(status)] = &huma.Response{
			Content: map[string]*huma.MediaType{problem.MediaType: {Schema: problemSchema()}},
		}
	}
	return &op
}

func cursorSchema() *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Examples: []any{"1207~k3xqa.12"}}
}
