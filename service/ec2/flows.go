package ec2

func noFlowLog(id string) error {
	if err := malformed("InvalidFlowLogId", "fl", id); err != nil {
		return err
	}
	return bad("InvalidFlowLogId.NotFound", "These flow log ids in the input list are not found: [TotalCount: 1] %s", id)
}
