output "envelope" {
  description = "What the module aws/wave needs to know."
  value = {
    subnets                 = local.subnets
    security_group_id       = aws_security_group.machine.id
    launch_template_id      = aws_launch_template.machine.id
    launch_template_version = tostring(aws_launch_template.machine.latest_version)
    public_address          = var.public_address
    kms_key_id              = var.kms_key_id
  }

  # A machine without a route to it would be made, and then never be reached.
  depends_on = [aws_route_table_association.made]
}
