# Two machines in a network of their own, reached from one address:
#   terraform init && terraform apply -var ssh_from=192.0.2.7/32 -var image=ami-... -var zone=us-east-1a

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80, < 6.0"
    }
  }
}

variable "ssh_from" {
  description = "Your own address, in CIDR notation."
  type        = string
}

variable "image" {
  description = "The id of an AMI with cloud-init."
  type        = string
}

variable "zone" {
  description = "The zone of both machines."
  type        = string
}

variable "public_key" {
  description = "The file of your public SSH key."
  type        = string
  default     = "~/.ssh/id_ed25519.pub"
}

provider "aws" {
  max_retries = 7
}

module "envelope" {
  source         = "../../../envelope"
  deployment     = "demo"
  ssh_from       = [var.ssh_from]
  zones          = [var.zone]
  public_address = true
}

module "wave" {
  source     = "../.."
  deployment = "demo"
  wave       = "first"
  envelope   = module.envelope.envelope

  machines = {
    for uid, market in { "00000000000a" = "on-demand", "00000000000b" = "spot" } : uid => {
      image                             = var.image
      instance_type                     = "t3.small"
      zone                              = var.zone
      market                            = market
      expires                           = "2030-01-31T12:00:00Z"
      tags                              = { tango-deployment = "demo", Name = "demo ${market}" }
    }
  }

  user_data = {
    for uid in ["00000000000a", "00000000000b"] :
    uid => "#cloud-config\n${jsonencode({ ssh_authorized_keys = [trimspace(file(pathexpand(var.public_key)))] })}"
  }
}

output "machines" {
  description = "Where to log in."
  value       = module.wave.machines
}
