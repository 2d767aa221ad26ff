package sdk

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
)

func TestSSMPaginators(t *testing.T) {
	t.Parallel()
	c, ctx := w.ssm, t.Context()
	parameters := five("/paged/parameter")
	var versions []string
	for i, name := range parameters {
		done(t)(c.PutParameter(ctx, &ssm.PutParameterInput{Name: &name, Type: types.ParameterTypeString, Value: new("v")}))
		v := must[*ssm.PutParameterOutput](t)(c.PutParameter(ctx, &ssm.PutParameterInput{Name: new("/history"), Type: types.ParameterTypeString, Value: new(fmt.Sprint(i)), Overwrite: new(true)}))
		versions = append(versions, fmt.Sprint(v.Version))
	}
	paginate(t, "ssm", []listing{
		pages(c, ssm.NewGetParametersByPathPaginator, &ssm.GetParametersByPathInput{Path: new("/paged")}, 2, "Parameters.Name", parameters),
		pages(c, ssm.NewDescribeParametersPaginator, &ssm.DescribeParametersInput{}, 2, "Parameters.Name", parameters),
		pages(c, ssm.NewGetParameterHistoryPaginator, &ssm.GetParameterHistoryInput{Name: new("/history")}, 2, "Parameters.Version", versions),
		// Whoever is online or in a session here belongs to other tests: asked is for an instance that never was.
		pages(c, ssm.NewDescribeInstanceInformationPaginator, &ssm.DescribeInstanceInformationInput{Filters: []types.InstanceInformationStringFilter{
			{Key: new("InstanceIds"), Values: []string{"i-00000000000000000"}}}}, 5, "InstanceInformationList.InstanceId", nil).empty(),
		pages(c, ssm.NewDescribeSessionsPaginator, &ssm.DescribeSessionsInput{State: types.SessionStateHistory, Filters: []types.SessionFilter{
			{Key: types.SessionFilterKeyTargetId, Value: new("i-00000000000000000")}}}, 2, "Sessions.SessionId", nil).empty(),
	})
	t.Run("waiters", func(t *testing.T) { complete(t, "ssm", "Waiter", nil) })
}
