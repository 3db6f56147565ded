package worker

import (
	"encoding/json"

	"github.com/pinion-cd/pinion/render"
)

// A request travels as JSON. Its parameters must arrive with the types they
// had, whole numbers as int64.

func encodeRequest(req render.Request) ([]byte, error) { return json.Marshal(req) }

func decodeRequest(data []byte, req *render.Request) error {
	if err := json.Unmarshal(data, req); err != nil {
		return err
	}
	if req.Parameters == nil {
		return nil
	}
	var raw struct {
		Parameters json.RawMessage `json:"parameters"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	parameters, err := render.ParseValue(raw.Parameters)
	if err != nil {
		return err
	}
	req.Parameters, _ = parameters.(map[string]any)
	return nil
}
