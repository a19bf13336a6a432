import 'reflect-metadata';
import { Controller, Get, Inject, Module, NotFoundException, Param, Req, UseGuards } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { type ClientProxy, ClientsModule, Transport } from '@nestjs/microservices';
import { firstValueFrom, timeout } from 'rxjs';
import { brokerUrl, port, queue } from './settings.js';
import { type Claims, TokenGuard } from './token.js';

@Controller('api/v1/projects')
@UseGuards(TokenGuard)
class ProjectController {
  constructor(@Inject('PROJECTS') private readonly projects: ClientProxy) {}

  @Get(':id')
  async get(@Param('id') id: string, @Req() request: { claims: Claims }): Promise<unknown> {
    const answer = this.projects.send('project.get', { id, organization: request.claims.org });
    const project = await firstValueFrom(answer.pipe(timeout(10_000)));
    if (project === null) throw new NotFoundException();
    return project;
  }
}

@Module({
  imports: [
    ClientsModule.register([
      {
        name: 'PROJECTS',
        transport: Transport.RMQ,
        options: { urls: [brokerUrl()], queue: queue(), queueOptions: { durable: false, autoDelete: true } },
      },
    ]),
  ],
  controllers: [ProjectController],
  providers: [TokenGuard],
})
class Gateway {}

const app = await NestFactory.create(Gateway, { logger: ['error', 'warn'] });
await app.listen(port(), '127.0.0.1');
