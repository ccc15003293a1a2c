locals {
  # A prefix, to which the cloud adds: an apply that was killed half-way is then just repeated.
  name = "tango-${var.deployment}"
  tags = {
    tango-deployment = var.deployment
    Name             = local.name
  }
}

resource "aws_security_group" "machine" {
  name_prefix = "${local.name}-"
  description = "Machines of the deployment ${var.deployment}: SSH from the orchestrator."
  vpc_id      = local.vpc_id
  tags        = local.tags

  # Inside the group, not as resources of their own: a rule that someone adds by hand is a change.
  dynamic "ingress" {
    for_each = length(local.ssh_from_ipv4) + length(local.ssh_from_ipv6) > 0 ? [22] : []

    content {
      description      = "SSH from the orchestrator."
      protocol         = "tcp"
      from_port        = ingress.value
      to_port          = ingress.value
      cidr_blocks      = local.ssh_from_ipv4
      ipv6_cidr_blocks = local.ssh_from_ipv6
    }
  }

  egress {
    description      = "Whatever the network lets out."
    protocol         = "-1"
    from_port        = 0
    to_port          = 0
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }

  lifecycle {
    create_before_destroy = true
  }
}

locals {
  # As EC2 writes them, with no bit set behind the prefix: else each plan would show a change.
  ssh_from      = distinct([for range in var.ssh_from : "${cidrhost(range, 0)}/${split("/", range)[1]}"])
  ssh_from_ipv4 = [for range in local.ssh_from : range if can(cidrnetmask(range))]
  ssh_from_ipv6 = [for range in local.ssh_from : range if !can(cidrnetmask(range))]
}

# What reviewers approve once for all machines. No instance profile, no key pair. Subnet, security
# group and public address are not here: EC2 refuses a request that names a subnet beside a template
# that has a network interface.
resource "aws_launch_template" "machine" {
  name_prefix = "${local.name}-"
  description = "Machines of the deployment ${var.deployment}."
  tags        = local.tags

  # A machine that powers itself off at its expiry is gone, not merely stopped.
  instance_initiated_shutdown_behavior = "terminate"

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    http_protocol_ipv6          = "disabled"
    instance_metadata_tags      = "disabled"
  }

  # An instance resource cannot tag its network interface in the creating call.
  tag_specifications {
    resource_type = "network-interface"
    tags          = local.tags
  }

  lifecycle {
    precondition {
      condition     = alltrue([for subnet in data.aws_subnet.existing : subnet.vpc_id == local.vpc_id])
      error_message = "Every subnet of the network must be in its VPC."
    }

    precondition {
      condition     = length(local.subnets) > 0
      error_message = "There is no subnet in any of the zones."
    }
  }
}
