package openapi

import (
	"time"

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/api/internal/overload"
	"streamcount/api/internal/problem"
)

// tagData is the tag of the operations on the data of users.
const tagData = "Data of users"

// ExportData describes the operation of that name.
func ExportData() Operation {
	return Operation{
		id: "export-data", tag: tagData, summary: "Export everything that is stored about a user",
		traits: Traits{Action: access.ExportData, Class: overload.Read},
		description: "Responds with everything that etcd contains under the user's id, from a linearizable read. It does not " +
			"contain logs and audit lines, nor the history of events in the memory of nodes.",
		problems: []problem.Type{problem.UserNotFound},
		response: apitype.UserData{
			UserID: "maya",
			Streams: []apitype.StoredStream{{
				ID: ExampleID, StartedAt: exampleTime(0), ExpiresAt: exampleTime(90 * time.Second), TTLSeconds: 90, Region: "local",
				Session: "tab-5f1c", Device: &apitype.Device{ID: "b8d0", Name: "Living room TV", Type: "tv"},
			}},
			Override:  apitype.LimitRule{Plan: "family"},
			Cooldowns: []apitype.StoredCooldown{{Of: "device", Hash: "nkN6XQ7BhJqTvU0sTbYl2g", ExpiresAt: exampleTime(time.Minute)}},
		},
	}
}

// EraseData describes the operation of that name.
func EraseData() Operation {
	return Operation{
		id: "erase-data", tag: tagData, summary: "Erase everything that is stored about a user",
		traits: Traits{Action: access.EraseData},
		description: "Ends all streams of the user, and removes their limit or plan and all other keys with the user's id. It is " +
			"safe to repeat: after a 503, which means that the outcome is unknown, a 404 means that everything is erased. A later " +
			"start of the user is a new stream.",
		problems: []problem.Type{problem.UserNotFound},
		response: apitype.ErasedData{UserID: "maya", Streams: 2, Override: true, Cooldowns: 1},
	}
}
