# Without an account: `terraform test` in this folder.

mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["us-east-1a", "us-east-1c"] }
  }

  mock_data "aws_subnet" {
    defaults = { availability_zone = "us-east-1b", vpc_id = "vpc-0a" }
  }

  mock_resource "aws_security_group" {
    defaults = { id = "sg-0a" }
  }

  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0a", latest_version = 3 }
  }
}

variables {
  deployment = "prod"
  ssh_from   = ["192.0.2.7/32"]
}

run "a_network_is_made_with_a_subnet_in_each_zone" {
  assert {
    condition     = { for zone, subnet in aws_subnet.made : zone => subnet.cidr_block } == { us-east-1a = "10.87.0.0/23", us-east-1c = "10.87.4.0/23" }
    error_message = "The range of a subnet must follow from its zone's letter."
  }

  assert {
    condition     = length(aws_internet_gateway.made) == 0 && length(aws_route_table.made) == 0 && !output.envelope.public_address
    error_message = "Without public addresses the network has no way to the internet."
  }

  assert {
    condition     = keys(output.envelope.subnets) == tolist(["us-east-1a", "us-east-1c"]) && output.envelope.security_group_id == "sg-0a" && output.envelope.launch_template_id == "lt-0a" && output.envelope.launch_template_version == "3" && output.envelope.kms_key_id == null
    error_message = "The envelope must hold what a wave needs."
  }

  assert {
    condition     = alltrue([for tags in concat([aws_security_group.machine.tags, aws_launch_template.machine.tags, aws_vpc.made[0].tags], values(aws_subnet.made)[*].tags) : tags["tango-deployment"] == "prod" && startswith(tags["Name"], "tango-prod")])
    error_message = "Everything must say whose it is."
  }
}

run "what_holds_for_every_machine" {
  command = plan

  assert {
    condition     = aws_launch_template.machine.metadata_options[0].http_tokens == "required" && aws_launch_template.machine.metadata_options[0].http_put_response_hop_limit == 1 && aws_launch_template.machine.metadata_options[0].http_protocol_ipv6 == "disabled" && aws_launch_template.machine.metadata_options[0].instance_metadata_tags == "disabled"
    error_message = "The metadata service must be version 2, one hop away, without IPv6 and tags."
  }

  assert {
    condition     = aws_launch_template.machine.instance_initiated_shutdown_behavior == "terminate" && length(aws_launch_template.machine.iam_instance_profile) == 0 && aws_launch_template.machine.key_name == null
    error_message = "A machine must end when it powers itself off, and have no role and no key."
  }

  assert {
    condition     = length(aws_launch_template.machine.network_interfaces) == 0 && aws_launch_template.machine.vpc_security_group_ids == null
    error_message = "EC2 refuses a subnet in the request beside a network interface in the template."
  }

  assert {
    condition     = aws_launch_template.machine.tag_specifications[0].resource_type == "network-interface" && aws_launch_template.machine.tag_specifications[0].tags["tango-deployment"] == "prod"
    error_message = "The network interface must say whose it is."
  }
}

run "port_22_is_open_to_whom_is_named" {
  command = plan

  variables {
    ssh_from = ["10.1.2.3/16", "2001:db8::7/128"]
  }

  assert {
    condition     = length(aws_security_group.machine.ingress) == 1 && alltrue([for rule in aws_security_group.machine.ingress : rule.from_port == 22 && rule.to_port == 22 && rule.protocol == "tcp" && rule.cidr_blocks == tolist(["10.1.0.0/16"]) && rule.ipv6_cidr_blocks == tolist(["2001:db8::7/128"])])
    error_message = "One rule, for port 22, with ranges as EC2 writes them."
  }
}

run "public_addresses_need_a_way_out" {
  command = plan

  variables {
    public_address = true
    zones          = ["us-east-1f"]
  }

  assert {
    condition     = length(aws_internet_gateway.made) == 1 && one(aws_route_table.made[0].route).cidr_block == "0.0.0.0/0" && keys(aws_route_table_association.made) == ["us-east-1f"]
    error_message = "Every subnet must have a route to the internet."
  }
}

run "an_existing_network_is_used" {
  command = plan

  variables {
    network = { vpc_id = "vpc-0a", subnet_ids = ["subnet-0b", "subnet-0a"] }
  }

  assert {
    condition     = length(aws_vpc.made) == 0 && length(aws_subnet.made) == 0 && aws_security_group.machine.vpc_id == "vpc-0a" && output.envelope.subnets == tomap({ us-east-1b = "subnet-0b" })
    error_message = "Nothing may be made beside it, and the first subnet of a zone counts."
  }
}

run "an_existing_network_has_the_subnets" {
  command = plan

  variables {
    network = { vpc_id = "vpc-0b", subnet_ids = ["subnet-0a"] }
  }

  expect_failures = [aws_launch_template.machine]
}

run "some_subnet_is_in_a_zone_asked_for" {
  command = plan

  variables {
    network = { vpc_id = "vpc-0a", subnet_ids = ["subnet-0a"] }
    zones   = ["us-east-1c"]
  }

  expect_failures = [aws_launch_template.machine]
}

run "everything_wrong_is_said_at_once" {
  command = plan

  variables {
    deployment   = "prod 2"
    network_cidr = "10.0.0.0/8"
    zones        = ["us-east-1a", "us-east-2a", "here"]
    network      = { vpc_id = "mine", subnet_ids = [] }
    ssh_from     = []
    kms_key_id   = "mine"
  }

  expect_failures = [var.deployment, var.network_cidr, var.zones, var.network, var.ssh_from, var.kms_key_id]
}

run "not_the_whole_internet" {
  command = plan

  variables {
    ssh_from = ["0.0.0.0/1"]
  }

  expect_failures = [var.ssh_from]
}

run "nor_the_whole_of_ipv6" {
  command = plan

  variables {
    ssh_from = ["2000::/12"]
  }

  expect_failures = [var.ssh_from]
}
