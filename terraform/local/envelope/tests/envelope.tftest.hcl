variables {
  deployment = "prod"
  root       = "/var/lib/local-cloud"
  python     = "/usr/bin/python3"
}

run "the_defaults_need_nothing_installed" {
  command = plan

  assert {
    condition     = var.server == "asyncssh" && !var.isolate && var.addresses == "127.64.0.0/10"
    error_message = "The defaults must work on a machine without sshd and bubblewrap."
  }
}

run "the_root_is_absolute" {
  command = plan

  variables {
    root = "cloud"
  }

  expect_failures = [var.root]
}

run "the_root_is_not_everything" {
  command = plan

  variables {
    root = "/"
  }

  expect_failures = [var.root]
}

run "the_python_is_absolute" {
  command = plan

  variables {
    python = "python3"
  }

  expect_failures = [var.python]
}

run "the_server_is_one_of_two" {
  command = plan

  variables {
    server = "dropbear"
  }

  expect_failures = [var.server]
}

run "machines_stay_on_loopback" {
  command = plan

  variables {
    addresses = "10.0.0.0/8"
  }

  expect_failures = [var.addresses]
}
