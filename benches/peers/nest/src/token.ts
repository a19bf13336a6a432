import { createPublicKey, type KeyObject } from 'node:crypto';
import { type CanActivate, type ExecutionContext, Injectable, UnauthorizedException } from '@nestjs/common';
import jwt from 'jsonwebtoken';
import { publicKey } from './settings.js';

export interface Claims {
  sub: string;
  org: string;
}

/** RS256, with the public key kept: no request for it, and no look-up, while requests are answered. */
@Injectable()
export class TokenGuard implements CanActivate {
  private readonly key: KeyObject = createPublicKey({ key: JSON.parse(publicKey()), format: 'jwk' });

  canActivate(context: ExecutionContext): boolean {
    const request = context.switchToHttp().getRequest();
    const header: string | undefined = request.headers.authorization;
    if (!header?.startsWith('Bearer ')) throw new UnauthorizedException();
    try {
      request.claims = jwt.verify(header.slice('Bearer '.length), this.key, { algorithms: ['RS256'] });
    } catch {
      throw new UnauthorizedException();
    }
    return true;
  }
}
