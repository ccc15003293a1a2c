# Without an account: `terraform test` in this folder.

mock_provider "aws" {
  mock_resource "aws_instance" {
    defaults = { id = "i-0a", private_ip = "10.87.0.4", public_ip = "192.0.2.9", availability_zone = "us-east-1a" }
  }
}

variables {
  deployment = "prod"
  wave       = "w1"
  envelope = {
    subnets                 = { us-east-1a = "subnet-0a", us-east-1b = "subnet-0b" }
    security_group_id       = "sg-0a"
    launch_template_id      = "lt-0a"
    launch_template_version = "3"
    public_address          = false
    kms_key_id              = null
  }
  machines = {
    "00000000002a" = {
      image         = "ami-0a"
      instance_type = "t3.small"
      zone          = "us-east-1a"
      tags          = { tango-deployment = "prod", Name = "prod-1001-Ünïcode / pool" }
      expires       = "2040-01-31T12:00:00Z"
    }
    "ffffffffffff" = {
      image         = "ami-0b"
      instance_type = "m7i-flex.large"
      zone          = "us-east-1b"
      market        = "spot"
      disk_gib      = 30
      tags          = { tango-deployment = "prod" }
      expires       = "2040-01-31T12:00:00+01:00"
    }
  }
  user_data = { "00000000002a" = "#cloud-config\n{}" }
}

run "a_machine_is_what_was_asked_for" {
  assert {
    condition     = output.machines["00000000002a"] == { instance_id = "i-0a", address = "10.87.0.4", port = 22, zone = "us-east-1a", instance_type = "t3.small" }
    error_message = "A machine must be told by its private address."
  }

  assert {
    condition     = aws_instance.machine["00000000002a"].tags == aws_instance.machine["00000000002a"].volume_tags && aws_instance.machine["00000000002a"].tags["Name"] == "prod-1001-Ünïcode / pool"
    error_message = "Instance and disks must bear all tags."
  }

  assert {
    condition     = aws_instance.machine["ffffffffffff"].subnet_id == "subnet-0b" && aws_instance.machine["ffffffffffff"].associate_public_ip_address == false && aws_instance.machine["ffffffffffff"].launch_template[0].version == "3"
    error_message = "A machine must be in its zone, without a public address, from the envelope's template."
  }

  assert {
    condition     = alltrue([for machine in aws_instance.machine : machine.root_block_device[0].encrypted && machine.root_block_device[0].volume_type == "gp3" && machine.root_block_device[0].delete_on_termination && machine.instance_initiated_shutdown_behavior == "terminate"])
    error_message = "Disks must be encrypted and go with the machine, which must end when it powers itself off."
  }

  assert {
    condition     = one(aws_instance.machine["ffffffffffff"].instance_market_options).market_type == "spot" && one(aws_instance.machine["ffffffffffff"].instance_market_options).spot_options[0].spot_instance_type == "one-time" && aws_instance.machine["ffffffffffff"].root_block_device[0].volume_size == 30
    error_message = "Market and disk must be those asked for."
  }
}

run "what_changes_later_replaces_no_machine" {
  variables {
    envelope = {
      subnets                 = { us-east-1a = "subnet-1a", us-east-1b = "subnet-1b" }
      security_group_id       = "sg-1a"
      launch_template_id      = "lt-1a"
      launch_template_version = "1"
      public_address          = true
    }
    user_data = {}
  }

  assert {
    condition     = aws_instance.machine["00000000002a"].subnet_id == "subnet-0a" && aws_instance.machine["00000000002a"].launch_template[0].id == "lt-0a" && output.machines["00000000002a"].address == "192.0.2.9"
    error_message = "A machine must stay as it was made; the address follows the envelope."
  }
}

run "an_empty_wave_is_a_wave" {
  command = plan

  variables {
    machines = {}
  }

  assert {
    condition     = length(output.machines) == 0
    error_message = "No machine asked for, none given."
  }
}

run "the_zone_is_one_of_the_envelope" {
  command = plan

  variables {
    machines = {
      "00000000002b" = { image = "ami-0a", instance_type = "t3.small", zone = "us-east-1f", tags = { tango-deployment = "prod" }, expires = "2040-01-31T12:00:00Z" }
    }
  }

  expect_failures = [aws_instance.machine]
}

run "everything_wrong_is_said_at_once" {
  command = plan

  variables {
    deployment = "prod 2"
    wave       = "Ω"
    machines = {
      "not-a-uid" = { image = "course.img", instance_type = "small", zone = "us-east-1a", market = "black", disk_gib = 0.5, tags = { Name = "x", tango-name = "Prod" }, expires = "tomorrow" }
    }
    envelope = { subnets = {}, security_group_id = "sg-0a", launch_template_id = "lt-0a", launch_template_version = "1" }
  }

  expect_failures = [var.deployment, var.wave, var.machines, var.envelope]
}

run "a_name_has_its_limit" {
  command = plan

  variables {
    machines = {
      "00000000002b" = { image = "ami-0a", instance_type = "t3.small", zone = "us-east-1a", tags = { tango-deployment = "prod", Name = join("", [for n in range(300) : "x"]) }, expires = "2040-01-31T12:00:00Z" }
    }
  }

  expect_failures = [var.machines]
}

run "user_data_has_its_limit" {
  command = plan

  variables {
    user_data = { "00000000002a" = join("", [for n in range(17) : format("%01000d", n)]) }
  }

  expect_failures = [var.user_data]
}
