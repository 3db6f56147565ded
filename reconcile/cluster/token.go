package cluster

import (
	"context"
	"encoding/json"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// User is whose a token is, as an API server knows it.
type User struct {
	Name   string
	Groups []string
}

// ReviewToken asks the API server whose a token is; ok is false if it is
// nobody's, or not for one of the audiences. It takes the right to create
// tokenreviews. The token is in the request's body, and in no error.
func (c *Cluster) ReviewToken(ctx context.Context, token string, audiences []string) (u User, ok bool, err error) {
	review := authenticationv1.TokenReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "TokenReview"},
		Spec:     authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences},
	}
	body, err := json.Marshal(review)
	if err != nil {
		return u, false, err
	}
	raw, err := rawOf(c.client.Post().AbsPath("apis", "authentication.k8s.io", "v1", "tokenreviews").
		SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").MaxRetries(0).Body(body).Do(ctx))
	if err != nil {
		return u, false, fmt.Errorf("cluster %s: review a token: %w; the daemon's account needs create on tokenreviews.authentication.k8s.io", c.config.Name, err)
	}
	var answer authenticationv1.TokenReview
	if err := json.Unmarshal(raw, &answer); err != nil {
		return u, false, fmt.Errorf("cluster %s: review a token: %w", c.config.Name, err)
	}
	// An API server that does not know of audiences does not answer with any.
	s := answer.Status
	if !s.Authenticated || len(audiences) > 0 && len(s.Audiences) == 0 {
		return u, false, nil
	}
	return User{s.User.Username, s.User.Groups}, true, nil
}
