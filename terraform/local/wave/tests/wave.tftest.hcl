# What can be said without making a machine: `terraform test` in this folder.

variables {
  deployment = "prod"
  wave       = "w1"
  envelope = {
    root      = "/var/lib/local-cloud"
    python    = "/usr/bin/python3"
    server    = "asyncssh"
    isolate   = false
    addresses = "127.64.0.0/10"
  }
  machines = {
    "00000000002a" = {
      image   = "local.img"
      tags    = { tango-deployment = "prod" }
      expires = "2040-01-31T12:00:00Z"
    }
    "ffffffffffff" = {
      image   = "local.img"
      tags    = { tango-deployment = "prod" }
      expires = "2040-01-31T12:00:00+01:00"
      zone    = "here"
      market  = "spot"
    }
  }
}

run "a_machine_is_known_before_it_is_made" {
  command = plan

  assert {
    condition     = output.machines["00000000002a"] == { instance_id = "i-00000000002a", address = "127.64.0.0", port = 10282, zone = "local", instance_type = "local" }
    error_message = "The instance id, address and port must follow from the uid."
  }

  assert {
    condition     = output.machines["ffffffffffff"].address == "127.127.255.255" && output.machines["ffffffffffff"].zone == "here"
    error_message = "Every address must lie in the envelope's range, and the zone be the one asked for."
  }

  assert {
    condition     = alltrue([for machine in values(output.machines) : machine.port >= 10240 && machine.port < 32768])
    error_message = "Ports must stay below those of outgoing connections."
  }

  assert {
    condition     = length(terraform_data.machine) == 2
    error_message = "One resource for each machine."
  }
}

run "one_address_is_enough" {
  command = plan

  variables {
    envelope = {
      root      = "/var/lib/local-cloud"
      python    = "/usr/bin/python3"
      server    = "asyncssh"
      isolate   = false
      addresses = "127.0.0.1/32"
    }
  }

  assert {
    condition     = alltrue([for machine in values(output.machines) : machine.address == "127.0.0.1"])
    error_message = "With one address all machines must be on it."
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

run "a_key_must_be_a_uid" {
  command = plan

  variables {
    machines = {
      "not-a-uid" = { image = "local.img", tags = { tango-deployment = "prod" }, expires = "2040-01-31T12:00:00Z" }
    }
  }

  expect_failures = [var.machines]
}

run "expiry_must_be_a_time" {
  command = plan

  variables {
    machines = {
      "00000000002a" = { image = "local.img", tags = { tango-deployment = "prod" }, expires = "tomorrow" }
    }
  }

  expect_failures = [var.machines]
}

run "a_machine_must_say_whose_it_is" {
  command = plan

  variables {
    machines = {
      "00000000002a" = { image = "local.img", tags = {}, expires = "2040-01-31T12:00:00Z" }
    }
  }

  expect_failures = [var.machines]
}

run "tags_keep_to_their_alphabet" {
  command = plan

  variables {
    machines = {
      "00000000002a" = { image = "local.img", tags = { tango-deployment = "Prod" }, expires = "2040-01-31T12:00:00Z" }
    }
  }

  expect_failures = [var.machines]
}

run "the_market_is_one_of_two" {
  command = plan

  variables {
    machines = {
      "00000000002a" = { image = "local.img", tags = { tango-deployment = "prod" }, expires = "2040-01-31T12:00:00Z", market = "black" }
    }
  }

  expect_failures = [var.machines]
}

run "the_deployment_keeps_to_its_alphabet" {
  command = plan

  variables {
    deployment = "prod 2"
  }

  expect_failures = [var.deployment]
}

run "a_home_is_an_absolute_path" {
  command = plan

  variables {
    machines = {
      "00000000002a" = { image = "course.img", tags = { tango-deployment = "prod" }, expires = "2040-01-31T12:00:00Z", home = "images/course" }
    }
  }

  expect_failures = [var.machines]
}
