/** How people and organizations are named, as the columns of their tables have it. */

export const USER_ID = /^user_[A-Za-z0-9_-]{1,95}$/;
export const ORG_ID = /^org_[A-Za-z0-9_-]{1,95}$/;
export const ORG_SLUG = /^[a-z0-9][a-z0-9_-]{0,62}$/;
