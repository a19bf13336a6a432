import 'reflect-metadata';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { MessagePattern, type MicroserviceOptions, Payload, Transport } from '@nestjs/microservices';
import { Projects } from './projects.js';
import { brokerUrl, queue } from './settings.js';

@Controller()
class ProjectController {
  constructor(private readonly projects: Projects) {}

  @MessagePattern('project.get')
  get(@Payload() message: { id: string; organization: string }): Promise<unknown> {
    return this.projects.get(message.id, message.organization);
  }
}

@Module({ controllers: [ProjectController], providers: [Projects] })
class Microservice {}

const app = await NestFactory.createMicroservice<MicroserviceOptions>(Microservice, {
  transport: Transport.RMQ,
  logger: ['error', 'warn'],
  options: {
    urls: [brokerUrl()],
    queue: queue(),
    queueOptions: { durable: false, autoDelete: true },
    // No acknowledgements, and as many at once as the load has connections: the fastest that it offers.
    noAck: true,
    prefetchCount: 64,
  },
});
await app.listen();
